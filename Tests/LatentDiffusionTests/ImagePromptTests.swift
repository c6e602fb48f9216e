import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Pictures as prompts: IP-Adapters and models of variations, against diffusers, and what is said of wrong ones.
@Suite struct ImagePromptTests {
  static let home = "image-prompts"
  static let cases = (try? PipelineCase.all(of: home)) ?? []
  static var folder: URL { ReferenceModel(home).folder }

  static func adapter(_ name: String) -> URL { folder.appending(path: "ip-adapter-\(name).safetensors") }
  static func encoder() throws -> CLIPImageEncoder { try CLIPImageEncoder.load(from: folder.appending(path: "image_encoder")) }

  static func picture(_ name: String = "picture.png") throws -> Tensor {
    try Picture(contentsOf: fixtures.appending(path: "models/inputs/\(name)")).tensor()
  }

  static func latents(_ model: StableDiffusion, _ request: GenerationRequest) async throws -> [Float] {
    try await model.pipeline.images(for: request).flatMap(\.latents.elements)
  }

  static func request(_ prompts: [ImagePrompt]) -> GenerationRequest {
    var request = GenerationRequest("a photo of the cat", seed: 7)
    (request.steps, request.width, request.height, request.imagePrompts) = (3, 32, 32, prompts)
    return request
  }

  @Test func allCasesAreHere() { #expect(Self.cases.count == 15) }

  @Test(.compares("Pictures as prompts", in: .adapters, with: "diffusers", unit: .deviation), arguments: cases)
  func drawsWhatDiffusersDraws(_ reference: PipelineCase) async throws {
    let encoder = try Self.encoder()
    let model = try (reference.adapters ?? []).reduce(reference.loadModel()) {
      try $0.adding(ipAdapter: Self.adapter($1.file), imageEncoder: encoder)
    }
    try await PipelineCaseTests.expectDrawn(reference, by: model)
  }

  /// The same tower under OpenCLIP's names and under transformers', with its configuration beside it; without, extents follow from shapes.
  @Test func singleFilesOfEncoders() throws {
    let folder = try TemporaryFolder()
    let names = ["openclip/model.safetensors", "image_encoder/model.safetensors"]
    let picture = try Self.picture(), expected = try Self.encoder()([picture], in: ExecutionContext()).imageEmbeds
    for name in names {
      let found = try CLIPImageEncoder.load(from: Self.folder.appending(path: name))([picture], in: ExecutionContext()).imageEmbeds
      expectClose(found, expected, tolerance: 1e-6, name)
      let alone = folder.url.appending(path: name.replacing("/", with: "-"))
      try FileManager.default.copyItem(at: Self.folder.appending(path: name), to: alone)
      let derived = try CLIPImageEncoder.load(from: alone).model.configuration
      #expect(derived.imageSize == 20 && derived.tokens == 26 && derived.features == 24 && derived.projectedFeatures == 12)
    }
    #expect(throws: ModelFilesError.self) { try CLIPImageEncoder.load(from: Self.adapter("sd1")) }
    #expect(throws: ModelFilesError.self) { try CLIPImageEncoder.load(from: folder.url.appending(path: "none")) }
  }

  /// What counts nothing, and what is not there, changes no bit; what counts, changes many.
  @Test func withoutScaleNothingChanges() async throws {
    let plain = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    let adapted = try plain.adding(ipAdapter: Self.adapter("sd1"), imageEncoder: Self.encoder())
    let expected = try await Self.latents(plain, Self.request([]))
    #expect(try await Self.latents(adapted, Self.request([])) == expected)
    #expect(try await Self.latents(adapted, Self.request([ImagePrompt([Self.picture()], scale: 0)])) == expected)
    let seen = try await Self.latents(adapted, Self.request([ImagePrompt([Self.picture()])]))
    #expect(compare(seen, expected).error > 0.01)
    #expect(adapted.warnings == plain.warnings)
  }

  /// Each thread its rows, or all rows together: with adapters, too.
  @Test func threadsDoNotMatter() async throws {
    let model = try StableDiffusion.load(from: ReferenceModel("sd1").folder).adding(
      ipAdapter: Self.adapter("sd1-plus"), imageEncoder: Self.encoder())
    let request = Self.request([ImagePrompt([try Self.picture()])])
    let one = try await model.pipeline.images(for: request, in: ExecutionContext(threads: 1)).flatMap(\.latents.elements)
    let two = try await model.pipeline.images(for: request, in: ExecutionContext(threads: 2)).flatMap(\.latents.elements)
    #expect(compare(one, two).error < 1e-4)
  }

  @Test func adaptersOfOtherModelsAreRefused() throws {
    let (encoder, model) = (try Self.encoder(), try StableDiffusion.load(from: ReferenceModel("sd1").folder))
    for (name, key) in [("sdxl", "image_proj.norm.weight"), ("sdxl-plus", "image_proj.norm_out.weight")] {
      let url = Self.adapter(name)
      #expect {
        try model.adding(ipAdapter: url, imageEncoder: encoder)
      } throws: {
        $0 as? IPAdapterError == .wrongWidth(path: url.path, key: key, found: 40, expected: 16, of: "a token of the model's text")
      }
    }
    // A model with the same width of text and fewer layers.
    let tiny = try StableDiffusion.load(from: ReferenceModel("tiny").folder)
    #expect(throws: IPAdapterError.self) { try tiny.adding(ipAdapter: Self.adapter("sd1"), imageEncoder: encoder) }
    #expect {
      try model.adding(
        ipAdapter: ReferenceModel("sd1").folder.appending(path: "vae/diffusion_pytorch_model.safetensors"), imageEncoder: encoder)
    } throws: {
      if case IPAdapterError.notAnAdapter = $0 { true } else { false }
    }
  }

  /// Every tensor taken away, and every shape made another: an error that names the file and says what is wrong, and nothing else.
  @Test(arguments: ["sd1", "sd1-plus"]) func damagedAdaptersAreRefused(_ name: String) throws {
    let (encoder, model) = (try Self.encoder(), try StableDiffusion.load(from: ReferenceModel("sd1").folder))
    let whole = try SafetensorsFile(Self.adapter(name)).tensors
    let folder = try TemporaryFolder()
    for key in whole.keys.sorted() {
      for shape: Shape? in [nil, [], [0], [1, 0], [3, 5, 7]] {
        var tensors = whole
        tensors[key] = shape.map { StoredTensor(shape: $0, elementType: "F16", data: Data(count: 2 * $0.count)) }
        let url = folder.url.appending(path: "damaged.safetensors")
        try Self.write(tensors, to: url)
        #expect {
          try model.adding(ipAdapter: url, imageEncoder: encoder)
        } throws: {
          $0 is IPAdapterError && "\($0)".contains("damaged.safetensors")
        }
      }
    }
  }

  private static func write(_ tensors: [String: StoredTensor], to url: URL) throws {
    var data = Data(), entries: [String] = []
    for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
      let end = data.count + tensor.data.count
      entries.append("\"\(name)\":{\"dtype\":\"\(tensor.elementType)\",\"shape\":\(tensor.shape),\"data_offsets\":[\(data.count),\(end)]}")
      data += tensor.data
    }
    try rawSafetensors("{\(entries.joined(separator: ","))}", data: data).write(to: url)
  }

  @Test func wrongRequestsAreRefused() throws {
    let plain = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    let adapted = try plain.adding(ipAdapter: Self.adapter("sd1"), imageEncoder: Self.encoder())
    let picture = try Self.picture()
    #expect(throws: GenerationError.imagePromptCount(found: 1, expected: 0)) {
      try plain.pipeline.generate(Self.request([ImagePrompt([picture])]))
    }
    #expect(throws: GenerationError.imagePromptCount(found: 2, expected: 1)) {
      try adapted.pipeline.generate(Self.request([ImagePrompt([picture]), ImagePrompt([picture])]))
    }
    for wrong in [
      ImagePrompt([]), ImagePrompt([Tensor(shape: [1, 4, 4, 4])]), ImagePrompt([Tensor(repeating: .nan, shape: [1, 4, 4, 3])]),
      ImagePrompt([Tensor(shape: [2, 4, 4, 3])]), ImagePrompt([picture], scale: .nan), ImagePrompt([Tensor(shape: [1, 0, 4, 3])]),
    ] {
      #expect(throws: GenerationError.self) { try adapted.pipeline.generate(Self.request([wrong])) }
    }
    #expect(throws: ComponentError.self) { try adapted.pipeline.generate(Self.request([ImagePrompt([picture], noiseLevel: 3)])) }
  }

  @Test func modelsOfVariationsNeedAPicture() async throws {
    for name in ["unclip", "variation"] {
      let model = try StableDiffusion.load(from: ReferenceModel(name).folder)
      #expect(model.warnings == [])
      #expect(throws: GenerationError.imagePromptCount(found: 0, expected: 1)) { try model.pipeline.generate(Self.request([])) }
      let picture = try Self.picture()
      for wrong in [ImagePrompt([picture, picture]), ImagePrompt([picture], scale: 0.5), ImagePrompt([picture], noiseLevel: 1000)] {
        #expect(throws: ComponentError.self) { try model.pipeline.generate(Self.request([wrong])) }
      }
    }
    let model = try StableDiffusion.load(from: ReferenceModel("variation").folder)
    await #expect(throws: ComponentError.self) { try await Self.latents(model, Self.request([ImagePrompt([Self.picture()])])) }
  }

  /// What a plan with a limit does not know of is told.
  @Test func limitsAreTold() throws {
    let url = ReferenceModel("sd1").folder, extent = GenerationExtent(size: PixelSize(width: 32, height: 32))
    let plan = try MemoryPlan(for: url, extent, limit: MemoryPlan(for: url, extent).predictedPeakBytes)
    let adapted = try StableDiffusion.load(from: url, plan: plan).adding(ipAdapter: Self.adapter("sd1"), imageEncoder: Self.encoder())
    #expect(adapted.warnings == [.outsidePlan(name: "ip-adapter-sd1.safetensors")])
  }

  /// A plan that knows of adapters counts them with their encoder, and says nothing more.
  @Test func plansCountAdapters() async throws {
    let url = ReferenceModel("sd1").folder, extent = GenerationExtent(size: PixelSize(width: 32, height: 32))
    let encoders = ["image_encoder", "openclip/model.safetensors"].map { Self.folder.appending(path: $0) }
    func plan(_ names: [String], encoder: URL = encoders[0], pictures: Int = 1) throws -> MemoryPlan {
      let adapters = ModelCompany.IPAdapters(names.map(Self.adapter), encoder: encoder, pictures: pictures)
      return try MemoryPlan(for: url, beside: ModelCompany(ipAdapters: adapters), extent, limit: 1_000_000_000)
    }
    let plans = try [MemoryPlan(for: url, extent), plan(["sd1"]), plan(["sd1", "sd1-plus"])]
    for (few, many) in zip(plans, plans.dropFirst()) { #expect(few.keptBytes < many.keptBytes) }
    #expect(try plan(["sd1"], pictures: 50).predictedPeakBytes > plans[1].predictedPeakBytes)
    #expect(throws: IPAdapterError.self) { try plan(["sdxl"]) }
    for encoder in encoders {
      let plan = try plan(["sd1", "sd1-plus"], encoder: encoder), tower = try CLIPImageEncoder.load(from: encoder, plan: plan)
      func adapted(_ model: StableDiffusion, _ encoder: CLIPImageEncoder) throws -> StableDiffusion {
        try ["sd1", "sd1-plus"].reduce(model) { try $0.adding(ipAdapter: Self.adapter($1), imageEncoder: encoder) }
      }
      let model = try adapted(StableDiffusion.load(from: url, plan: plan), tower)
      #expect(model.warnings == [])
      let request = Self.request(try ["picture.png", "picture.png"].map { ImagePrompt([try Self.picture($0)]) })
      let usual = try adapted(StableDiffusion.load(from: url), CLIPImageEncoder.load(from: encoder))
      #expect(try await Self.latents(model, request) == Self.latents(usual, request))
    }
  }

  /// A plan follows the image encoder, and a picture of one pixel, or of one row, is a picture.
  @Test func plansAndSmallPictures() async throws {
    for name in ["unclip", "variation"] {
      let url = ReferenceModel(name).folder
      let plan = try MemoryPlan(for: url, GenerationExtent(size: PixelSize(width: 32, height: 32)))
      let model = try StableDiffusion.load(from: url, plan: plan)
      for shape: Shape in [[1, 1, 1, 3], [1, 1, 300, 3]] {
        var request = GenerationRequest("", seed: 3)
        (request.steps, request.imagePrompts) = (2, [ImagePrompt([Tensor(repeating: 0.5, shape: shape)])])
        #expect(try await Self.latents(model, request).allSatisfy(\.isFinite))
      }
    }
  }
}
