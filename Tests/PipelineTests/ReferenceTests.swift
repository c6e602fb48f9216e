import LatentDiffusionComponents
import Foundation
import Pipeline
import Schedulers
import Synchronization
import Tensor
import LatentDiffusionTestSupport
import Testing

/// diffusers' own pipelines on the same toys (`Tests/Fixtures/pipeline/make_pipeline_fixtures.py`): order of random draws,
/// batches, guidance, masks, which steps are run.
@Suite struct ReferenceTests {
  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let task, scheduler: String
    let prompts, negativePrompts: [String]
    let steps, width, height, imagesPerPrompt: Int
    let seed: UInt64
    let guidance: Double
    let strength, imageGuidance, guidanceRescale: Double?
    let noise: UInt64?
    let schedulerConfiguration: SchedulerConfiguration?
    let latents, image: [Float]

    var testDescription: String { "\(task), \(scheduler), strength \(strength ?? 1), guidance \(guidance), \(prompts.count) prompts" }
  }

  struct Resampling: Decodable {
    let width, height: Int
    let pixels: [Float]
  }

  private struct File: Decodable {
    let cases: [Case]
    let lanczos: [Resampling]
  }

  private static func file() throws -> File {
    try JSONDecoder().decode(File.self, from: Data(contentsOf: fixtures.appending(path: "pipeline/cases.json")))
  }

  private static let cases: [Case] = (try? file())?.cases ?? []
  static let toyCases = cases.filter { $0.schedulerConfiguration == nil }
  static let schedulerCases = cases.filter { $0.schedulerConfiguration != nil }

  @Test func allCasesAreHere() throws {
    #expect(try Self.file().cases.count == 53)
    #expect(Self.toyCases.count == 19)
    #expect(Self.schedulerCases.count == 34)
  }

  @Test(.compares("Pipelines of toy components", in: .tasks, with: "diffusers", unit: .absolute), arguments: toyCases)
  func diffusersOnTheSameToys(reference: Case) async throws {
    let images = try await reference.pipeline { steps in
      ToyScheduler(
        steps: steps, order: reference.scheduler == "toy-second-order" ? 2 : 1, stir: reference.scheduler == "toy-stirred" ? 0.25 : 0)
    }.images(for: reference.request)
    // Rounding alone: a few operations on numbers around 10.
    compare(images, reference, tolerance: 2e-5)
  }

  /// Every scheduler at work: where it starts in the middle, and what it adds to a picture under a mask.
  @Test(
    .compares("Pipelines of toy components with every scheduler", in: .tasks, with: "diffusers", unit: .absolute), arguments: schedulerCases
  ) func diffusersWithItsSchedulers(reference: Case) async throws {
    let configuration = try #require(reference.schedulerConfiguration)
    let kind = try SchedulerKind(of: configuration)
    var pipeline = reference.pipeline { try kind.make(configuration: configuration, steps: $0) }
    if reference.task == "lcm-img2img" {
      pipeline.schedule = { steps, task, _ in Schedule(try LCMScheduler(configuration, steps: steps, strength: task.strength)) }
    }
    let spread = reference.latents.map(abs).max() ?? 1
    compare(try await pipeline.images(for: reference.request), reference, tolerance: 2e-5 * max(1, spread))
  }

  /// What a network predicts of its variance is left out where the scheduler does not take it, and a scheduler that takes it wants it.
  @Test func variancesAreTakenOrLeftOut() async throws {
    var learned = SchedulerConfiguration()
    learned.varianceType = "learned_range"
    for (kind, isTaken) in [(SchedulerKind.ddpm, true), (.ddim, false), (.dpmSolverMultistep, false), (.heun, false)] {
      func pipeline(_ predictor: any NoisePredictor) -> DiffusionPipeline {
        DiffusionPipeline(predictor: predictor, autoencoder: ToyAutoencoder(), conditioner: ToyConditioner()) { [learned] in
          try kind.make(configuration: learned, steps: $0)
        }
      }
      let with = try await pipeline(VariancePredictor()).images(for: toyRequest("a"))
      guard !isTaken else {
        #expect(throws: ComponentError.self) { try pipeline(ToyPredictor()).generate(toyRequest("a")) }
        continue
      }
      let without = try await pipeline(ToyPredictor()).images(for: toyRequest("a"))
      #expect(with[0].latents.elements == without[0].latents.elements)
    }
  }

  private func compare(_ images: [GeneratedImage], _ reference: Case, tolerance: Float) {
    let latents = difference(images.flatMap(\.latents.elements), reference.latents)
    expect(error: latents.value, atMost: tolerance, "latents differ by \(latents.value) at \(latents.index)")
    let pixels = difference(images.flatMap { corners($0.image) }, reference.image)
    expect(error: pixels.value, atMost: tolerance, "pixels differ by \(pixels.value) at \(pixels.index)")
  }

  /// Pillow rounds to whole steps of 255 after each of its two passes.
  @Test func resamplingIsPillows() async throws {
    for reference in try Self.file().lanczos {
      let seen = Mutex<[Float]>([])
      struct Watching: LatentAutoencoder {
        let toy = ToyAutoencoder()
        let note: @Sendable (Tensor) -> Void
        var spatialScale: Int { toy.spatialScale }
        var latentChannels: Int { toy.latentChannels }
        var latentScale: Float { toy.latentScale }
        func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
          note(image)
          return try toy.encode(image, in: context)
        }
        func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor { try toy.decode(latents, in: context) }
      }
      var pipeline = toyPipeline()
      pipeline.autoencoder = Watching { image in seen.withLock { $0 = image.elements } }
      let photo = toyImage(width: 23, height: 13).map { ($0 * 255).rounded(.toNearestOrEven) / 255 }
      var request = toyRequest("a", task: ImageToImage(.pixels(photo)))
      (request.width, request.height) = (reference.width, reference.height)
      _ = try await pipeline.images(for: request)
      let apart = difference(seen.withLock { $0 }.map { ($0 + 1) / 2 * 255 }, reference.pixels)
      // Whole numbers of 255, taken to -1…1 and back.
      #expect(apart.value < 1e-3, "\(reference.width)×\(reference.height): \(apart.value) of 255 at \(apart.index)")
    }
  }

  /// The upper left pixel of each latent's square.
  private func corners(_ image: Tensor) -> [Float] {
    let (height, width) = (image.shape[1], image.shape[2])
    let elements = image.elements
    var result: [Float] = []
    for y in stride(from: 0, to: height, by: 4) {
      for x in stride(from: 0, to: width, by: 4) {
        let pixel = (y * width + x) * 3
        result += elements[pixel..<pixel + 3]
      }
    }
    return result
  }
}

extension ReferenceTests.Case {
  func pipeline(scheduler: @escaping @Sendable (Int) throws -> any Scheduler) -> DiffusionPipeline {
    let channels = task == "inpaint9" ? 9 : task == "edit" ? 8 : 4
    let toy = ToyPredictor(inputChannels: channels, embedsGuidance: task.hasPrefix("lcm"))
    return DiffusionPipeline(
      predictor: self.scheduler == "ddpm-learned-range" ? VariancePredictor(base: toy) : toy, autoencoder: ToyAutoencoder(),
      conditioner: ToyConditioner(), scheduler: scheduler)
  }

  var request: GenerationRequest {
    var request = GenerationRequest(prompts: prompts.map { Prompt($0) }, seed: seed)
    request.negativePrompts = negativePrompts.map { Prompt($0) }
    request.steps = steps
    request.guidance = guidance
    request.guidanceRescale = guidanceRescale ?? 0
    request.imagesPerPrompt = imagesPerPrompt
    request.width = width
    request.height = height
    if let noise {
      var generator = TorchGenerator(seed: noise)
      request.noise = generator.normal(channelsLast: [prompts.count * imagesPerPrompt, height / 4, width / 4, 4])
    }
    let image = toyImage(width: width, height: height)
    request.task =
      switch task {
      case "img2img", "lcm-img2img": ImageToImage(.pixels(image), strength: strength ?? 0.8)
      case "inpaint", "inpaint9":
        Inpainting(image: image, mask: toyMask(width: width, height: height), strength: strength ?? 1)
      case "edit": InstructionEditing(image, imageGuidance: imageGuidance ?? 1.5)
      default: TextToImage()
      }
    return request
  }
}
