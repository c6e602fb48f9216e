import LatentDiffusionComponents
import Foundation
import Pipeline
import Schedulers
import Tensor
import Testing

/// A generation that is taken out between two steps and put back gives the same picture.
@Suite struct CheckpointTests {
  private func resumed(_ request: GenerationRequest, on pipeline: DiffusionPipeline, after steps: Int) async throws -> [GeneratedImage] {
    var iterator = try pipeline.generate(request).makeAsyncIterator()
    #expect(try iterator.checkpoint == nil)
    for _ in 0..<steps { _ = try await iterator.next() }
    // As another process would read it.
    let data = try JSONEncoder().encode(#require(try iterator.checkpoint))
    let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: data)
    #expect(checkpoint.step >= steps)
    var images: [GeneratedImage] = [], count = 0
    for try await event in try pipeline.generate(request, from: checkpoint) {
      switch event {
      case .step: count += 1
      case .image(let image): images.append(image)
      }
    }
    #expect(count > 0)
    return images
  }

  private static let tasks: [String: any GenerationTask] = [
    "text-to-image": TextToImage(), "image-to-image": ImageToImage(.pixels(toyImage(width: 20, height: 20)), strength: 0.8),
    "inpainting": Inpainting(image: toyImage(width: 20, height: 20), mask: toyMask(width: 20, height: 20)),
  ]

  /// With a history (DPM++ 2M, PNDM, UniPC, Heun, LMS) and with noise at each step (Euler a, DDPM, LCM).
  @Test(arguments: SchedulerKind.allCases, tasks.keys.sorted())
  func everySchedulerGoesOn(_ kind: SchedulerKind, task: String) async throws {
    var pipeline = toyPipeline()
    pipeline.schedule = { steps, task, _ in
      Schedule(try kind.make(configuration: SchedulerConfiguration(), steps: steps), steps: steps, strength: task.strength)
    }
    var request = toyRequest("a", "b", steps: 8, task: try #require(Self.tasks[task]))
    request.negativePrompts = ["c"]
    let whole = try await pipeline.images(for: request)
    for steps in [1, 3] {
      let found = try await resumed(request, on: pipeline, after: steps)
      #expect(found.map(\.latents.elements) == whole.map(\.latents.elements), "\(kind.rawValue), \(task), after \(steps)")
      #expect(found.map(\.image.elements) == whole.map(\.image.elements))
    }
  }

  /// The checkpoint of another request, model or scheduler is refused in a sentence.
  @Test func aCheckpointOfAnotherRequestIsRefused() async throws {
    let request = toyRequest("a", steps: 6)
    var iterator = try toyPipeline().generate(request).makeAsyncIterator()
    _ = try await iterator.next()
    let checkpoint = try #require(try iterator.checkpoint)
    var wider = request, fewer = request, seeded = request
    seeded.seed &+= 1
    wider.width = 24
    wider.height = 20
    fewer.steps = 5
    var other = toyPipeline()
    other.schedule = { steps, _, _ in Schedule(try EulerDiscreteScheduler(steps: steps)) }
    for (pipeline, request) in [(toyPipeline(), wider), (toyPipeline(), fewer), (toyPipeline(), seeded), (other, request)] {
      let error = await #expect(throws: GenerationError.self) {
        for try await _ in try pipeline.generate(request, from: checkpoint) {}
      }
      #expect(error?.description.hasPrefix("The checkpoint does not belong to this request on this model: ") == true)
    }
  }

  /// A file that somebody changed throws and does not trap.
  @Test func damagedCheckpointsThrow() async throws {
    let request = toyRequest("a", steps: 6)
    var iterator = try toyPipeline().generate(request).makeAsyncIterator()
    _ = try await iterator.next()
    let data = try JSONEncoder().encode(#require(try iterator.checkpoint))
    let json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    let damages: [(String, Any)] = [
      ("step", -1), ("step", 6), ("step", Int.max), ("passes", [-1]), ("passes", [Int]()), ("noise", Data("{}".utf8).base64EncodedString()),
      ("scheduler", Data("[1]".utf8).base64EncodedString()), ("guidance", ""), ("timesteps", [Float]()),
    ]
    for (key, value) in damages {
      var damaged = json
      damaged[key] = value
      let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONSerialization.data(withJSONObject: damaged))
      await #expect(throws: GenerationError.self, "\(key)") { for try await _ in try toyPipeline().generate(request, from: checkpoint) {} }
    }
    var latents = json
    latents["latents"] = ["shape": [1, 1 << 62, 4, 4], "elements": ""]
    #expect(throws: (any Error).self) {
      try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONSerialization.data(withJSONObject: latents))
    }
  }
}
