import LatentDiffusionComponents
import Foundation
import Pipeline
import Synchronization
import Tensor
import Testing

@Suite struct LoopTests {
  /// The loop written out by hand for text-to-image, with the toys' formulas and nothing of the pipeline.
  @Test func textToImageFollowsTheFormula() async throws {
    var request = toyRequest("a cat", steps: 3)
    request.guidance = 2
    let image = try #require(try await toyPipeline().images(for: request).first)

    var generator = TorchGenerator(seed: 7)
    var x = generator.normal(channelsLast: [1, 5, 5, 4]) * 3
    func mean(_ text: String) -> Float { ToyConditioner.states(text).reduce(0, +) / 6 }
    for step in 0..<3 {
      let scaled = (x / Float(step + 1)).elements
      func prediction(_ text: String) -> [Float] {
        (0..<100).map { i in
          let (pixel, c) = (i / 4, i % 4)
          let left = (pixel / 5 * 5 + (pixel % 5 + 4) % 5) * 4 + c
          let own = (0.5 + 0.2 * mean(text)) * scaled[i]
          return own + 0.1 * scaled[left] + 0.1 * Float(1000 - 10 * step) / 1000 + 0.3 * mean(text)
        }
      }
      let guided = Swift.zip(prediction(""), prediction("a cat")).map { $0 + 2 * ($1 - $0) }
      x = x - Tensor(guided, shape: x.shape) / 3
    }
    let apart = difference(image.latents.elements, x.elements)
    #expect(apart.value < 1e-5, "at \(apart.index)")
    #expect(image.image.shape == [1, 20, 20, 3])
    #expect(image.prompt == "a cat")
  }

  @Test func guidanceUpToOneTakesOneRow() async throws {
    for (guidance, rows) in [(0.0, 1), (1.0, 1), (1.01, 2), (7.5, 2)] {
      let predictor = ToyPredictor()
      var request = toyRequest("a")
      request.guidance = guidance
      _ = try await toyPipeline(predictor).images(for: request)
      #expect(predictor.diary.passes.map { $0.shape[0] } == [rows, rows, rows, rows], "guidance \(guidance)")
    }
  }

  @Test func embeddedGuidanceIsAnInputAndTakesOneRow() async throws {
    let predictor = ToyPredictor(embedsGuidance: true)
    var request = toyRequest("a", steps: 2)
    request.guidance = 8.5
    _ = try await toyPipeline(predictor).images(for: request)
    #expect(predictor.diary.passes.map(\.guidance) == [8.5, 8.5])
    #expect(predictor.diary.passes.allSatisfy { $0.shape[0] == 1 })
  }

  @Test func batchesGoNegativePromptsFirstAndPicturesOfAPromptTogether() async throws {
    let predictor = ToyPredictor()
    var request = toyRequest("one", "two", steps: 1)
    request.negativePrompts = ["no", "never"]
    request.imagesPerPrompt = 2
    let images = try await toyPipeline(predictor).images(for: request)
    let expected = ["no", "no", "never", "never", "one", "one", "two", "two"].flatMap(ToyConditioner.states)
    #expect(predictor.diary.passes.map(\.hiddenStates) == [expected])
    #expect(images.map(\.prompt) == ["one", "one", "two", "two"])
    #expect(images.map(\.index) == [0, 1, 2, 3])
    // One draw for the whole batch, in the order [N, C, h, w].
    var generator = TorchGenerator(seed: 7)
    let noise = generator.normal(channelsLast: [4, 5, 5, 4]) * 3
    #expect(predictor.diary.passes.first?.input.elements == noise.elements + noise.elements)
  }

  @Test func oneNegativePromptServesAll() async throws {
    let (shared, apart) = (ToyPredictor(), ToyPredictor())
    var request = toyRequest("one", "two", "three", steps: 1)
    request.negativePrompts = ["no"]
    _ = try await toyPipeline(shared).images(for: request)
    request.negativePrompts = ["no", "no", "no"]
    _ = try await toyPipeline(apart).images(for: request)
    #expect(shared.diary.passes.first?.hiddenStates == apart.diary.passes.first?.hiddenStates)
  }

  @Test func picturesOfABatchAreThoseOfTheirNoise() async throws {
    var batch = toyRequest("one", "two")
    var generator = TorchGenerator(seed: 3)
    let noise = generator.normal(channelsLast: [2, 5, 5, 4])
    batch.noise = noise
    let together = try await toyPipeline().images(for: batch)
    for (index, prompt) in (["one", "two"] as [Prompt]).enumerated() {
      var request = toyRequest(prompt)
      request.noise = noise.rows(index..<index + 1)
      let alone = try await toyPipeline().images(for: request)
      #expect(alone.first?.image.elements == together[index].image.elements)
    }
  }

  @Test(arguments: [1, 2, 3]) func aSeedIsAPictureWhateverTheThreads(threads: Int) async throws {
    let request = toyRequest("a", "b")
    let here = try await toyPipeline(stir: 0.3).images(for: request, in: ExecutionContext(threads: threads))
    let there = try await toyPipeline(stir: 0.3).images(for: request)
    #expect(here.map(\.image.elements) == there.map(\.image.elements))
    var other = request
    other.seed = 8
    #expect(try await toyPipeline(stir: 0.3).images(for: other).first?.image.elements != here.first?.image.elements)
  }

  @Test func stepsComeBeforePicturesAndAreNumbered() async throws {
    var request = toyRequest("a", "b", steps: 3)
    request.width = 12
    request.height = 28
    var story: [String] = []
    var last: Tensor?
    for try await event in try toyPipeline().generate(request) {
      switch event {
      case .step(let step):
        story.append("step \(step.index) of \(step.count) at \(step.timestep)")
        last = step.latents
      case .image(let image):
        story.append("image \(image.index) \(image.image.shape)")
        #expect(image.latents.elements == last?.rows(image.index..<image.index + 1).elements)
      }
    }
    #expect(
      story == [
        "step 0 of 3 at 1000.0", "step 1 of 3 at 990.0", "step 2 of 3 at 980.0", "image 0 [1, 28, 12, 3]", "image 1 [1, 28, 12, 3]",
      ])
  }

  @Test func nothingIsComputedThatNobodyAsksFor() async throws {
    let predictor = ToyPredictor()
    var iterator = try toyPipeline(predictor).generate(toyRequest("a", steps: 50)).makeAsyncIterator()
    #expect(predictor.diary.passes.isEmpty)
    _ = try await iterator.next()
    _ = try await iterator.next()
    #expect(predictor.diary.passes.count == 2)
  }

  @Test func aGenerationCanBeRunTwice() async throws {
    let generation = try toyPipeline(stir: 0.1).generate(toyRequest("a"))
    func latents() async throws -> [[Float]] {
      var all: [[Float]] = []
      for try await case .step(let step) in generation { all.append(step.latents.elements) }
      return all
    }
    let first = try await latents()
    #expect(first.count == 4)
    #expect(try await latents() == first)
  }

  /// The toy's pass would last a minute; cancelling ends it within.
  @Test func cancellingStopsInsideAStep() async throws {
    let (began, beginning) = AsyncStream.makeStream(of: Void.self)
    let predictor = ToyPredictor { context in
      beginning.yield()
      for _ in 0..<60_000 {
        try context.checkCancellation()
        Thread.sleep(forTimeInterval: 0.001)
      }
    }
    let task = Task { try await toyPipeline(predictor).images(for: toyRequest("a")) }
    for await _ in began { break }
    let clock = ContinuousClock()
    let start = clock.now
    task.cancel()
    await #expect(throws: CancellationError.self) { _ = try await task.value }
    // Generous: how long it takes is for benchmarks, and the machine may be busy.
    #expect(clock.now - start < .seconds(30))
    #expect(predictor.diary.passes.count == 1)
  }

  @Test func nothingFollowsAnError() async throws {
    struct Broken: Error {}
    let predictor = ToyPredictor { _ in throw Broken() }
    var iterator = try toyPipeline(predictor).generate(toyRequest("a")).makeAsyncIterator()
    await #expect(throws: Broken.self) { _ = try await iterator.next() }
    #expect(try await iterator.next() == nil)
  }

  @Test func latentsThatAreNoNumbersAreAnError() async throws {
    var pipeline = toyPipeline()
    struct Breaking: Scheduler {
      var schedule: NoiseSchedule {
        NoiseSchedule(timesteps: [3, 2, 1], levels: Array(repeating: NoiseLevel(alpha: 1, sigma: 0), count: 4))
      }
      mutating func advance(
        _ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource
      ) throws -> StepResult { StepResult(sample: step == 1 ? sample / 0 : sample) }
    }
    pipeline.schedule = { _, _, _ in Schedule(Breaking()) }
    await #expect(throws: GenerationError.diverged(step: 1)) { _ = try await pipeline.images(for: toyRequest("a")) }
  }

  @Test func componentsOfAnotherShapeAreAnError() async throws {
    struct Wide: NoisePredictor {
      let inputChannels = 4
      let outputChannels = 4
      func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
        Tensor.concatenated([latents, latents], axis: -1)
      }
    }
    var pipeline = toyPipeline()
    pipeline.predictor = Wide()
    var request = toyRequest("a")
    (request.width, request.height) = (20, 20)
    await #expect(throws: ComponentError.self) { _ = try await pipeline.images(for: request) }
  }

  @Test func rescalingFullyGivesTheSpreadOfThePromptsPrediction() async throws {
    func spread(_ guidance: Double, _ rescale: Double) async throws -> Float {
      var request = toyRequest("^", steps: 1)
      (request.guidance, request.guidanceRescale) = (guidance, rescale)
      request.noise = noise
      let change = try await toyPipeline().images(for: request)[0].latents - 3 * noise
      let mean = change.elements.reduce(0, +) / 100
      return change.elements.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }.squareRoot()
    }
    var generator = TorchGenerator(seed: 2)
    let noise = generator.normal(channelsLast: [1, 5, 5, 4])
    let (prompt, guided, restored) = (try await spread(1, 0), try await spread(9, 0), try await spread(9, 1))
    #expect(guided > 1.1 * prompt)
    #expect(abs(restored / prompt - 1) < 1e-4)
  }
}
