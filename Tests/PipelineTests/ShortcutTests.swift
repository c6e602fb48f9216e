import LatentDiffusionComponents
import Pipeline
import Synchronization
import Tensor
import Testing

/// A toy whose whole passes leave a number that the others take up, and that keeps a list of which were which.
private struct RecyclingPredictor: NoisePredictor {
  let toy = ToyPredictor()
  var inputChannels: Int { toy.inputChannels }
  var outputChannels: Int { toy.outputChannels }
  var sampleSize: Int? { toy.sampleSize }
  let log = Log()

  final class Log: Sendable {
    let passes = Mutex<[Pass]>([])
    struct Pass: Sendable, Equatable {
      var isWhole: Bool
      var seed: UInt64
      var rows: Int
    }
  }

  func check(_ shortcuts: Shortcuts) throws {}

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    try toy.predict(latents, timestep: timestep, conditioning: conditioning, in: context)
  }

  func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    let kept = memory.reusesFeatures ? memory.kept["prediction"] : nil
    let (isWhole, seed) = (kept == nil, memory.seed)
    log.passes.withLock { $0.append(.init(isWhole: isWhole, seed: seed, rows: conditioning.rows)) }
    let prediction = try predict(latents, timestep: timestep, conditioning: conditioning, in: context)
    memory.kept["prediction"] = kept ?? prediction
    memory.endPass()
    return kept.map { 0.5 * (prediction + $0) } ?? prediction
  }
}

@Suite struct ShortcutTests {
  private func pipeline(_ predictor: RecyclingPredictor, order: Int = 1) -> DiffusionPipeline {
    var pipeline = toyPipeline(order: order)
    pipeline.predictor = predictor
    return pipeline
  }

  private func wholePasses(
    interval: Int?, steps: Int, order: Int = 1, task: any GenerationTask = TextToImage()
  ) async throws -> [Bool] {
    let predictor = RecyclingPredictor()
    var request = toyRequest("a", steps: steps, task: task)
    request.stepCaching = interval.map { StepCaching(interval: $0) }
    _ = try await pipeline(predictor, order: order).images(for: request)
    return predictor.log.passes.withLock { $0.map(\.isWhole) }
  }

  /// Passes are counted, not steps: Heun's method takes two a step, and then the first of each is whole.
  @Test func everySoManyPassesOneIsWhole() async throws {
    #expect(try await wholePasses(interval: nil, steps: 4) == [true, true, true, true])
    #expect(try await wholePasses(interval: 1, steps: 4) == [true, true, true, true])
    #expect(try await wholePasses(interval: 2, steps: 5) == [true, false, true, false, true])
    #expect(try await wholePasses(interval: 3, steps: 5) == [true, false, false, true, false])
    #expect(try await wholePasses(interval: 2, steps: 2, order: 2) == [true, false, true, false])
    #expect(try await wholePasses(interval: 100_000, steps: 3) == [true, false, false])
  }

  /// Whatever steps are left out at the start, the first pass of a generation is whole.
  @Test func theFirstPassIsWholeInEveryTask() async throws {
    let image = toyImage(width: 20, height: 20)
    let later = ImageToImage(.pixels(image), strength: 0.5)
    #expect(try await wholePasses(interval: 3, steps: 8, task: later) == [true, false, false, true])
    let inpainting = Inpainting(image: image, mask: toyMask(width: 20, height: 20), strength: 0.5)
    #expect(try await wholePasses(interval: 3, steps: 8, task: inpainting) == [true, false, false, true])
  }

  @Test func guidanceAndBatchesShareThePass() async throws {
    let predictor = RecyclingPredictor()
    var request = toyRequest("a", "b", steps: 2)
    request.imagesPerPrompt = 2
    request.stepCaching = StepCaching(interval: 2)
    _ = try await pipeline(predictor).images(for: request)
    let passes = predictor.log.passes.withLock { $0 }
    #expect(passes == [.init(isWhole: true, seed: 7, rows: 8), .init(isWhole: false, seed: 7, rows: 8)])
  }

  /// Two generations that take turns, and a copy of one of them, each have a memory of their own.
  @Test func generationsShareNothing() async throws {
    let pipeline = pipeline(RecyclingPredictor())
    var (one, other) = (toyRequest("a", steps: 5), toyRequest("something else", steps: 5))
    (one.stepCaching, other.stepCaching) = (StepCaching(interval: 3), StepCaching(interval: 2))
    func latents(_ iterator: inout Generation.Iterator) async throws -> [Float]? {
      guard case .step(let step) = try await iterator.next() else { return nil }
      return step.latents.elements
    }
    func alone(_ request: GenerationRequest) async throws -> [[Float]] {
      var iterator = try pipeline.generate(request).makeAsyncIterator()
      var all: [[Float]] = []
      while let next = try await latents(&iterator) { all.append(next) }
      return all
    }
    let expected = (try await alone(one), try await alone(other))
    #expect(expected.0.count == 5)
    var (first, second) = (try pipeline.generate(one).makeAsyncIterator(), try pipeline.generate(other).makeAsyncIterator())
    var copy: Generation.Iterator?
    for step in 0..<5 {
      #expect(try await latents(&first) == expected.0[step], "step \(step)")
      #expect(try await latents(&second) == expected.1[step], "step \(step)")
      if step == 1 { copy = first }
    }
    var again = try #require(copy)
    for step in 2..<5 { #expect(try await latents(&again) == expected.0[step], "step \(step) of the copy") }
  }

  @Test func reusingChangesThePicture() async throws {
    let pipeline = pipeline(RecyclingPredictor())
    var request = toyRequest("a", steps: 4)
    let plain = try await pipeline.images(for: request)[0].latents.elements
    request.stepCaching = StepCaching(interval: 1)
    #expect(try await pipeline.images(for: request)[0].latents.elements == plain)
    request.stepCaching = StepCaching(interval: 2)
    #expect(try await pipeline.images(for: request)[0].latents.elements != plain)
  }

  /// Who asks for a short cut wants it, and is told where there is none.
  @Test func aPredictorWithoutShortCutsRefusesThem() {
    func refused(_ option: String, _ change: (inout GenerationRequest) -> Void) {
      var request = toyRequest("a")
      change(&request)
      #expect(throws: ComponentError.unsupported(component: "This noise predictor", option: option)) {
        _ = try toyPipeline().generate(request)
      }
    }
    refused("step caching") { $0.stepCaching = StepCaching(interval: 2) }
    refused("token merging") { $0.tokenMerging = 0.5 }
  }

  @Test func numbersMustBePossible() {
    func refused(_ name: String, _ value: String, _ allowed: String, _ change: (inout GenerationRequest) -> Void) {
      var request = toyRequest("a")
      change(&request)
      let pipeline = pipeline(RecyclingPredictor())
      #expect(throws: GenerationError.outOfRange(name: name, value: value, allowed: allowed)) { _ = try pipeline.generate(request) }
    }
    for interval in [0, -1, Int.min] {
      refused("The interval of step caching", "\(interval)", "from 1 to 100000") { $0.stepCaching = StepCaching(interval: interval) }
    }
    refused("The branch of step caching", "-1", "from 0 to 100000") { $0.stepCaching = StepCaching(interval: 2, branch: -1) }
    for ratio in [-0.1, 0.76, 1, .infinity, .nan] {
      refused("Token merging", "\(ratio)", "from 0.0 to 0.75") { $0.tokenMerging = ratio }
    }
  }
}
