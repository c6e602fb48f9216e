import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Whole pipelines of the families around the same U-Net, as diffusers runs them: see `PipelineCaseTests`.
@Suite struct FamilyCaseTests {
  static let models = ["depth5", "upscale7", "ldm", "ldm-class", "ldm-table", "ldm-text"]
  static let cases = models.flatMap { (try? PipelineCase.all(of: $0)) ?? [] }

  @Test func allCasesAreHere() { #expect(Self.cases.count == 17) }

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
    let plan = try MemoryPlan(for: folder)
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
