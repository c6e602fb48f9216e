import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Whole pipelines of the families around the same U-Net, as diffusers runs them: see `PipelineCaseTests`.
@Suite struct FamilyCaseTests {
  static let models = ["depth5", "upscale7", "latent-upscaler", "ldm", "ldm-class", "ldm-table", "ldm-text"]
  static let cases = models.flatMap { (try? PipelineCase.all(of: $0)) ?? [] }

  @Test func allCasesAreHere() { #expect(Self.cases.count == 21) }

  @Test(.compares("Whole pipelines of other families", in: .tasks, with: "diffusers", unit: .deviation), arguments: cases)
  func drawsWhatDiffusersDraws(_ reference: PipelineCase) async throws {
    try await PipelineCaseTests().drawsWhatDiffusersDraws(reference)
  }

  private func load(_ name: String) throws -> DiffusionModel {
    let model = try DiffusionModel.load(from: ReferenceModel(name).folder)
    #expect(model.warnings == [], "\(name)")
    return model
  }

  private func firstEvent(_ model: DiffusionModel, _ change: (inout GenerationRequest) -> Void) async throws {
    var request = model.request("", seed: 1)
    request.steps = 2
    change(&request)
    var iterator = try model.pipeline.generate(request).makeAsyncIterator()
    _ = try await iterator.next()
  }

  @Test func defaultsAreThoseOfTheReferencesPipelines() throws {
    func settings(_ name: String, _ task: any GenerationTask = TextToImage()) throws -> [Double] {
      var request = try load(name).request("")
      request.task = task
      return [Double(request.steps), request.guidance]
    }
    let image = Tensor(shape: [1, 32, 32, 3])
    #expect(try settings("depth5", DepthToImage(.pixels(image), depth: Tensor(shape: [1, 8, 8, 1]))) == [50, 7.5])
    #expect(try settings("upscale7", Upscaling(image)) == [75, 9])
    #expect(try settings("latent-upscaler", LatentUpscaling(.pixels(image))) == [75, 9])
    #expect(try settings("ldm") == [50, 1])
    #expect(try settings("ldm-text") == [50, 1])
  }

  @Test func whatAModelWasNotMadeForIsRefused() async throws {
    let image = Tensor(shape: [1, 16, 16, 3])
    let depth = Tensor((0..<64).map(Float.init), shape: [1, 8, 8, 1])
    let (upscaler, depthModel, plain) = (try load("upscale7"), try load("depth5"), try load("ldm"))
    for (model, task) in [
      (upscaler, TextToImage()), (depthModel, TextToImage()), (plain, Upscaling(image)), (upscaler, Upscaling(image, noiseLevel: 51)),
      (upscaler, Upscaling(image, noiseLevel: -1)), (depthModel, DepthToImage(.pixels(image), depth: Tensor(shape: [1, 8, 8, 1]))),
      (depthModel, DepthToImage(.pixels(image), depth: image)), (depthModel, Upscaling(image)),
      (depthModel, DepthToImage(.pixels(image), depth: Tensor(repeating: .nan, shape: [1, 8, 8, 1]))),
    ] as [(DiffusionModel, any GenerationTask)] {
      await #expect(throws: GenerationError.self, "\(task)") { try await firstEvent(model) { $0.task = task } }
    }
    // The upscaler's result has one size, and the depth may be of any size.
    await #expect(throws: GenerationError.self) {
      try await firstEvent(upscaler) { ($0.task, $0.width) = (Upscaling(image), 32) }
    }
    for mode in ResizeMode.allCases {
      try await firstEvent(depthModel) {
        ($0.task, $0.width, $0.height, $0.resizeMode) = (DepthToImage(.pixels(image), depth: depth), 24, 16, mode)
      }
    }
    try await firstEvent(depthModel) { $0.task = DepthToImage(.latents(Tensor(shape: [1, 4, 4, 4])), depth: depth) }
  }

  @Test func whatALatentUpscalerWasNotMadeForIsRefused() async throws {
    let picture = Tensor(shape: [1, 16, 16, 3]), latents = SourceImage.latents(Tensor(shape: [1, 4, 4, 4]))
    let (upscaler, editor) = (try load("latent-upscaler"), try load("edit8"))
    // Both have eight channels, but not what the others' tasks bring.
    await #expect(throws: ComponentError.self) { try await firstEvent(upscaler) { $0.task = InstructionEditing(picture) } }
    await #expect(throws: ComponentError.self) { try await firstEvent(editor) { $0.task = LatentUpscaling(latents) } }
    for task in [
      TextToImage(), Upscaling(picture), LatentUpscaling(.latents(Tensor(shape: [1, 4, 4, 3]))), LatentUpscaling(.pixels(latents.tensor)),
      LatentUpscaling(.pixels(Tensor(repeating: .nan, shape: picture.shape))),
    ] as [any GenerationTask] {
      await #expect(throws: GenerationError.self, "\(task)") { try await firstEvent(upscaler) { $0.task = task } }
    }
    // Latents that cannot be doubled to what the network halves, pictures too small to be mirrored below.
    await #expect(throws: (any Error).self) {
      try await firstEvent(upscaler) { $0.task = LatentUpscaling(.latents(Tensor(shape: [1, 5, 4, 4]))) }
    }
    await #expect(throws: ComponentError.self) {
      try await firstEvent(upscaler) { $0.task = LatentUpscaling(.pixels(Tensor(shape: [1, 4, 16, 3]))) }
    }
    await #expect(throws: GenerationError.self) {
      try await firstEvent(upscaler) { ($0.task, $0.denoisingStart) = (LatentUpscaling(latents), 0.5) }
    }
    await #expect(throws: GenerationError.self) {
      try await firstEvent(upscaler) { ($0.task, $0.denoisingEnd) = (LatentUpscaling(latents), 0.5) }
    }
    // A picture of other sides is resampled, and the result may have a size of its own.
    try await firstEvent(upscaler) { $0.task = LatentUpscaling(.pixels(Tensor(shape: [1, 19, 13, 3]))) }
    try await firstEvent(upscaler) { ($0.task, $0.width, $0.height) = (LatentUpscaling(.pixels(picture)), 48, 40) }
    // Schedulers whose samples are x₀ + σ ε.
    for kind in SchedulerKind.allCases {
      var other = upscaler
      try other.use(kind)
      if [.euler, .eulerAncestral, .heun, .lms].contains(kind) {
        try await firstEvent(other) { $0.task = LatentUpscaling(latents) }
      } else {
        await #expect(throws: SchedulerError.self, "\(kind)") { try await firstEvent(other) { $0.task = LatentUpscaling(latents) } }
      }
    }
  }

  /// A generation that goes on in another process has the scheduler's own steps.
  @Test func aPlaceOfALatentUpscalerGoesOn() async throws {
    let model = try load("latent-upscaler")
    var request = model.request("a cat", seed: 3)
    (request.task, request.steps) = (LatentUpscaling(.latents(Tensor(repeating: 0.5, shape: [1, 4, 4, 4]))), 4)
    var steps = try model.pipeline.generate(request).makeAsyncIterator()
    for _ in 0..<2 { _ = try await steps.next() }
    let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONEncoder().encode(#require(try steps.checkpoint)))
    let whole = try await model.pipeline.images(for: request)
    var others: [GeneratedImage] = []
    for try await event in try model.pipeline.generate(request, from: checkpoint) {
      if case .image(let image) = event { others.append(image) }
    }
    #expect(others.map(\.latents.elements) == whole.map(\.latents.elements))
    #expect(whole[0].image.shape == [1, 16, 16, 3])
  }

  @Test func theInputsOfALatentUpscalerMustFit() throws {
    for (file, key, value) in [
      ("unet/config.json", "time_cond_proj_dim", "140"), ("unet/config.json", "out_channels", "4"),
      ("unet/config.json", "cross_attention_dim", "24"),
    ] {
      let copy = try ModelCopy("latent-upscaler")
      try copy.set(key, value, in: file)
      #expect(throws: (any Error).self, "\(key)") { try DiffusionModel.load(from: copy.folder) }
      #expect(throws: (any Error).self, "\(key)") { try MemoryPlan(for: copy.folder) }
    }
    // A U-Net of other blocks is none of a latent upscaler, nor the other way round.
    for (name, other) in [("latent-upscaler", "edit8"), ("edit8", "latent-upscaler")] {
      let copy = try ModelCopy(name)
      try copy.replace("unet", with: other)
      #expect(throws: ComponentError.self, "\(name)") { try DiffusionModel.load(from: copy.folder) }
    }
  }

  @Test func classesAreAskedForByNumberOrName() async throws {
    let model = try load("ldm-class")
    for (prompt, negative) in [("10", nil), ("-1", nil), ("", nil), ("unicorn", nil), ("1", "unicorn")] as [(Prompt, Prompt?)] {
      await #expect(throws: ComponentError.self, "\(prompt)") {
        try await firstEvent(model) {
          $0.prompts = [prompt]
          if let negative { ($0.guidance, $0.negativePrompts) = (3, [negative]) }
        }
      }
    }
    // Guidance needs a class to stay away from.
    await #expect(throws: ComponentError.self) { try await firstEvent(model) { ($0.prompts, $0.guidance) = (["1"], 3) } }
    let conditioner = try #require(model.pipeline.conditioner as? ClassConditioner)
    #expect(try conditioner.number(of: "goldfish") == 1 && conditioner.number(of: " Tinca Tinca") == 0)
    let error = #expect(throws: ComponentError.self) { try conditioner.number(of: "cat") }
    #expect(error?.description == #"The model takes a class from 0 to 9, or a name such as tench, but was given "cat"."#)
  }

  @Test func withoutATextThereIsNoPrompt() async throws {
    let model = try load("ldm")
    await #expect(throws: ComponentError.self) { try await firstEvent(model) { $0.prompts = ["a cat"] } }
    await #expect(throws: ComponentError.self) { try await firstEvent(model) { $0.guidance = 3 } }
  }

  @Test func anyAutoencoderTakesItsPlace() async throws {
    let copy = try ModelCopy("ldm")
    try copy.remove("vqvae")
    try FileManager.default.copyItem(at: ReferenceModel("vq").folder.appending(path: "vae"), to: copy.folder.appending(path: "vqvae"))
    try copy.set("vqvae", #"["diffusers", "VQModel"]"#, in: "model_index.json")
    let model = try DiffusionModel.load(from: copy.folder)
    #expect(model.warnings == [])
    var request = model.request("", seed: 1)
    request.steps = 1
    #expect(try await model.pipeline.images(for: request).count == 1)
    // Components that do not fit one another, and those that are none.
    try copy.set("vqvae", #"["diffusers", "UNet2DModel"]"#, in: "model_index.json")
    #expect(throws: (any Error).self) { try DiffusionModel.load(from: copy.folder) }
  }

  @Test(arguments: models) func plansAndInspectionsKnowThem(_ name: String) async throws {
    let folder = ReferenceModel(name).folder
    // A latent upscaler says no size of its own.
    let extent = name == "latent-upscaler" ? GenerationExtent(size: PixelSize(width: 32, height: 48), encodesPicture: true) : nil
    let plan = try MemoryPlan(for: folder, extent)
    #expect(plan.predictedPeakBytes > 0)
    let report = try DiffusionModel.inspect(folder)
    // The folder of the depth estimator, which nothing needs, is not here.
    let components = report.components.filter { !["depth_estimator", "feature_extractor"].contains($0.name) }
    #expect(report.problem == nil && components.allSatisfy { $0.problem == nil && ($0.unused ?? []).isEmpty })
  }

  @Test func indicesWithoutSenseAreRefused() throws {
    let copy = try ModelCopy("upscale7")
    for value in ["-1", "0.5", "1e300"] {
      try copy.set("max_noise_level", value, in: "model_index.json")
      #expect(throws: ConfigurationError.self, "\(value)") { try DiffusionModel.load(from: copy.folder) }
    }
    try copy.set("max_noise_level", "100000", in: "model_index.json")
    #expect(try DiffusionModel.load(from: copy.folder).pipeline.pictureNoise.count == 1000)
    // The pipeline takes its own scale, whatever the autoencoder's file says.
    try copy.set("scaling_factor", "0.5", in: "vae/config.json")
    #expect(try DiffusionModel.load(from: copy.folder).pipeline.autoencoder.latentScale == 0.08333)
    try copy.set("low_res_scheduler", "[null, null]", in: "model_index.json")
    #expect(throws: ModelFilesError.self) { try DiffusionModel.load(from: copy.folder) }
  }
}

extension SourceImage {
  fileprivate var tensor: Tensor {
    switch self {
    case .pixels(let tensor), .latents(let tensor): tensor
    }
  }
}
