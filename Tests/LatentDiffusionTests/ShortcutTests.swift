import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Step caching and token merging in whole generations.
@Suite struct ShortcutTests {
  private static func request(_ seed: UInt64 = 5, _ task: any GenerationTask = TextToImage()) -> GenerationRequest {
    var request = GenerationRequest("a photo of the cat", seed: seed)
    request.negativePrompts = ["blurred, grey"]
    request.task = task
    request.steps = 6
    return request
  }

  private static let picture: Tensor = {
    var numbers = Numbers(seed: 3)
    return Tensor(numbers.uniform(32 * 40 * 3, in: 0...1), shape: [1, 32, 40, 3])
  }()

  private static let mask = Tensor((0..<32 * 40).map { $0 % 40 < 25 ? 1 : 0 }, shape: [1, 32, 40, 1])

  /// The last one draws noise of its own in the loop, Heun's takes two passes a step, PNDM repeats a timestep.
  @Test(arguments: [SchedulerKind.pndm, .heun, .eulerAncestral, .dpmSolverMultistep])
  func whatSavesNothingChangesNothing(_ kind: SchedulerKind) async throws {
    var model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    try model.use(kind)
    let tasks: [GenerationTask] = [
      TextToImage(), ImageToImage(.pixels(Self.picture), strength: 0.7), Inpainting(image: Self.picture, mask: Self.mask),
    ]
    for (index, task) in tasks.enumerated() {
      var request = Self.request(5, task)
      let plain = try #require(try await model.pipeline.images(for: request).first)
      (request.stepCaching, request.tokenMerging) = (StepCaching(interval: 1, branch: 2), 0)
      let same = try #require(try await model.pipeline.images(for: request).first)
      #expect(same.image.elements == plain.image.elements, "task \(index)")
      (request.stepCaching, request.tokenMerging) = (StepCaching(interval: 2), 0.5)
      var all: [[Float]] = []
      for threads in 1...3 {
        let image = try await model.pipeline.images(for: request, in: ExecutionContext(threads: threads)).first
        all.append(try #require(image).image.elements)
      }
      #expect(all[0] != plain.image.elements, "task \(index): nothing was saved")
      #expect(all[0] == all[1] && all[0] == all[2], "task \(index): threads change the picture")
    }
  }

  @Test func generationsAtOnceAreThoseOneByOne() async throws {
    let pipeline = try StableDiffusion.load(from: ReferenceModel("sd1").folder).pipeline
    let requests = (0..<4).map { index in
      var request = Self.request(UInt64(index))
      request.stepCaching = StepCaching(interval: 2 + index % 2, branch: index)
      request.tokenMerging = Double(index) / 4
      return request
    }
    var expected: [[Float]] = []
    for request in requests { expected.append(try await pipeline.images(for: request)[0].latents.elements) }
    try await withThrowingTaskGroup(of: (Int, [Float]).self) { group in
      for (index, request) in requests.enumerated() {
        group.addTask { (index, try await pipeline.images(for: request)[0].latents.elements) }
      }
      for try await (index, found) in group { #expect(found == expected[index], "generation \(index)") }
    }
  }

  /// What the embedded model draws stays the picture that it was: the figures in Docs/Performance.md come from more pictures.
  @Test func theEmbeddedModelsPicturesStayAlike() async throws {
    let model = try StableDiffusion.load(from: EmojiModel.folder())
    func image(_ change: (inout GenerationRequest) -> Void) async throws -> [Float] {
      var request = model.request("red apple", seed: 0)
      change(&request)
      return try await model.pipeline.images(for: request)[0].image.elements
    }
    let plain = try await image { _ in }
    func decibels(_ other: [Float]) -> Double {
      let squares = Swift.zip(plain, other).reduce(0.0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
      return -10 * log10(squares / Double(plain.count))
    }
    let cached = decibels(try await image { $0.stepCaching = StepCaching(interval: 2) })
    let merged = decibels(try await image { $0.tokenMerging = 0.5 })
    print("red apple: every second step cached \(cached) dB, half of the tokens merged \(merged) dB")
    #expect(cached > 20 && cached < 80)
    #expect(merged > 20 && merged < 80)
  }
}
