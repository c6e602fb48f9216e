import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A run of one of diffusers' pipelines with ControlNets or T2I-Adapters, as `Tests/Fixtures/controls/make_controls.py` describes it.
struct ControlCase: Decodable, Sendable, CustomTestStringConvertible {
  struct Steering: Decodable, Sendable {
    let network: String
    let pictures: [String]
    let weight: Double
    let start: Double
    let end: Double
    private enum CodingKeys: CodingKey { case network, picture, weight, start, end }

    init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: CodingKeys.self)
      network = try values.decode(String.self, forKey: .network)
      pictures = try (try? [values.decode(String.self, forKey: .picture)]) ?? values.decode([String].self, forKey: .picture)
      weight = try values.decode(Double.self, forKey: .weight)
      start = try values.decode(Double.self, forKey: .start)
      end = try values.decode(Double.self, forKey: .end)
    }
  }

  private(set) var run: PipelineCase
  let model: String
  let controls: [Steering]
  let isGuessing: Bool
  private enum CodingKeys: String, CodingKey {
    case model, controls
    case guessMode = "guess_mode"
  }

  init(from decoder: any Decoder) throws {
    run = try PipelineCase(from: decoder)
    let values = try decoder.container(keyedBy: CodingKeys.self)
    model = try values.decode(String.self, forKey: .model)
    run.home = model
    controls = try values.decode([Steering].self, forKey: .controls)
    isGuessing = try values.decodeIfPresent(Bool.self, forKey: .guessMode) ?? false
  }

  var testDescription: String { run.testDescription }

  static let folder = fixtures.appending(path: "controls")

  static func all() throws -> [ControlCase] {
    struct File: Decodable { let pipelines: [ControlCase] }
    return try JSONDecoder().decode(File.self, from: Data(contentsOf: folder.appending(path: "cases.json"))).pipelines
  }

  static func control(_ network: String) throws -> any ControlModel {
    let url = folder.appending(path: network)
    return network.contains("adapter") ? try T2IAdapter.load(from: url) : try ControlNetModel.load(from: url)
  }

  func request() throws -> GenerationRequest {
    var request = try run.request()
    request.controls = try controls.map { given in
      let model = try Self.control(given.network)
      let pictures = try given.pictures.map { try Picture(contentsOf: fixtures.appending(path: "models/inputs/\($0)")) }
      let tensors = pictures.map { model.pictureChannels == 1 ? $0.mask() : $0.tensor() }
      return Control(
        model, picture: Tensor.concatenated(tensors, axis: 0), weight: given.weight, start: given.start, end: given.end,
        isGuessing: isGuessing)
    }
    return request
  }
}

/// Whole pipelines with ControlNets and T2I-Adapters on tiny models: the same latents after every step as diffusers.
@Suite struct ControlCaseTests {
  static let cases = (try? ControlCase.all()) ?? []

  @Test func allCasesAreHere() { #expect(Self.cases.count == 24) }

  @Test(
    .compares("Whole pipelines with ControlNets and T2I-Adapters", in: .controls, with: "diffusers", unit: .deviation), arguments: cases)
  func drawsWhatDiffusersDraws(_ reference: ControlCase) async throws {
    let expected = try reference.run.files.reduce(into: [String: Tensor]()) { all, file in
      all.merge(try readTensors(ControlCase.folder.appending(path: "reference/\(file)"))) { first, _ in first }
    }
    var model = try StableDiffusion.load(from: ReferenceModel(reference.model).folder)
    if let scheduler = reference.run.scheduler { try model.use(SchedulerKind(named: scheduler)) }
    try await PipelineCaseTests.expectDrawn(reference.run, by: model, reference.request(), expected)
  }

  /// The place of a generation knows the step, so that a control goes on where it stopped; and threads with rows of their own change nothing.
  @Test func goesOnFromItsPlace() async throws {
    let model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    let request = try #require(Self.cases.first { $0.run.name == "two" }).request()
    let whole = try await model.pipeline.images(for: request, in: ExecutionContext(threads: 1))
    var steps = try model.pipeline.generate(request, in: ExecutionContext(threads: 2)).makeAsyncIterator()
    for _ in 0..<5 { _ = try await steps.next() }
    let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONEncoder().encode(#require(try steps.checkpoint)))
    var latents: Tensor?
    for try await event in try model.pipeline.generate(request, from: checkpoint, in: ExecutionContext(threads: 2)) {
      if case .step(let step) = event { latents = step.latents }
    }
    #expect(try #require(latents).elements == whole[0].latents.elements)
  }

  /// Short cuts can be had beside controls. With step caching a generation goes on from its place as without.
  @Test func shortcuts() async throws {
    let model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    var request = try #require(Self.cases.first { $0.run.name == "one" }).request()
    request.steps = 2
    let plain = try await model.pipeline.images(for: request)
    request.tokenMerging = 0.5
    let merged = try await model.pipeline.images(for: request)
    #expect(plain[0].latents.elements != merged[0].latents.elements)
    (request.tokenMerging, request.stepCaching, request.steps) = (nil, StepCaching(interval: 1), 4)
    func latents(_ request: GenerationRequest, from checkpoint: Generation.Checkpoint? = nil) async throws -> [Float] {
      var latents: Tensor?
      for try await event in try model.pipeline.generate(request, from: checkpoint) {
        if case .step(let step) = event { latents = step.latents }
      }
      return try #require(latents).elements
    }
    let whole = try await latents(request)
    request.stepCaching = nil
    #expect(try await latents(request) == whole)
    request.stepCaching = StepCaching(interval: 3)
    let cached = try await latents(request)
    #expect(compare(cached, whole).error > 1e-3)
    var unsteered = request
    unsteered.controls = []
    #expect(compare(cached, try await latents(unsteered)).error > 1e-3)
    var steps = try model.pipeline.generate(request).makeAsyncIterator()
    for _ in 0..<2 { _ = try await steps.next() }
    let checkpoint = try #require(try steps.checkpoint)
    #expect(try await latents(request, from: checkpoint) == cached)
  }

  @Test func impossibleControlsAreRefused() throws {
    let model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    let net = try ControlCase.control("sd1"), picture = Tensor(shape: [1, 8, 8, 3])
    func error(_ control: Control, on model: StableDiffusion = model) -> String {
      var request = GenerationRequest("a cat", seed: 1)
      request.controls = [control]
      do { _ = try model.pipeline.generate(request) } catch { return "\(error)" }
      return "nothing"
    }
    #expect(error(Control(net, picture: picture)) == "nothing")
    #expect(error(Control(net, picture: Tensor(shape: [1, 8, 8, 1]))).contains("[N, height, width, 3], not [1, 8, 8, 1]"))
    #expect(error(Control(net, picture: Tensor(shape: [1, 0, 8, 3]))).contains("[N, height, width, 3], not [1, 0, 8, 3]"))
    #expect(error(Control(net, picture: Tensor(shape: [3, 8, 8, 3]))).contains("[1, height, width, 3], not [3, 8, 8, 3]"))
    #expect(error(Control(net, picture: Tensor(repeating: .nan, shape: [1, 8, 8, 3]))).contains("finite"))
    #expect(error(Control(net, picture: picture, weight: .nan)).contains("The weight of a control is nan"))
    #expect(error(Control(net, picture: picture, start: 0.7, end: 0.3)).contains("The end of a control is 0.3; it must be from 0.7 to 1.0"))
    #expect(error(Control(try ControlCase.control("adapter"), picture: picture, isGuessing: true)).contains("has no guess mode"))
    let widths =
      "The ControlNet does not fit this model: it was made for a U-Net of 8, 16, 24 channels that attends to 40, "
      + "and this one has 8, 8, 12 and attends to 16."
    #expect(error(Control(try ControlCase.control("sdxl"), picture: picture)) == widths)
    #expect(
      error(Control(try ControlCase.control("adapter-xl"), picture: picture))
        == "The T2I-Adapter does not fit this model: it has features of 8, 16, 24, 24 channels, and this U-Net has levels of 8, 8, 12.")
    // A control of another scale is found out at the first step.
    #expect(error(Control(try ControlCase.control("sd2"), picture: picture)).contains("8, 16, 24 channels that attends to 24"))
  }

  /// A plan counts what steers, as often as it was told; a request with more is refused.
  @Test func limitsOnMemoryCountControls() async throws {
    let url = ReferenceModel("sd1").folder, extent = GenerationExtent(size: PixelSize(width: 32, height: 32))
    let places = ["sd1", "adapter"].map { ControlCase.folder.appending(path: $0) }
    func plan(_ controls: [URL], limit: Int = 1_000_000_000) throws -> MemoryPlan {
      try MemoryPlan(for: url, beside: ModelCompany(controls: controls), extent, limit: limit)
    }
    let plans = try [plan([]), plan([places[0]]), plan(places), plan(places + [places[0]])]
    for (few, many) in zip(plans, plans.dropFirst()) {
      #expect(few.keptBytes < many.keptBytes && few.predictedPeakBytes < many.predictedPeakBytes)
    }
    #expect(plans[3].keptBytes - plans[2].keptBytes == plans[1].keptBytes - plans[0].keptBytes)
    #expect(plans[1].predictedRelativeTime == 1 && plans[2].extent.controls == ["The ControlNet", "The T2I-Adapter"])
    var request = GenerationRequest("a cat", seed: 1)
    (request.width, request.height, request.steps) = (32, 32, 2)
    let picture = Tensor(repeating: 0.3, shape: [1, 32, 32, 3])
    func controls(_ plan: MemoryPlan?) throws -> [Control] {
      [
        Control(try ControlNetModel.load(from: places[0], plan: plan), picture: picture),
        Control(try T2IAdapter.load(from: places[1], plan: plan), picture: picture),
      ]
    }
    let model = try StableDiffusion.load(from: url, plan: plans[2])
    request.controls = try controls(plans[2])
    let planned = try await model.pipeline.images(for: request)
    var free = request
    free.controls = try controls(nil)
    let usual = try await StableDiffusion.load(from: url).pipeline.images(for: free)
    #expect(planned[0].latents.elements == usual[0].latents.elements)
    request.controls.append(request.controls[1])
    #expect(throws: MemoryPlanError.uncountedControl(name: "The T2I-Adapter")) { _ = try model.pipeline.generate(request) }
    request.controls = []
    _ = try model.pipeline.generate(request)
  }

  @Test func plansRefuseForeignControls() throws {
    func plan(_ control: URL) throws -> MemoryPlan {
      try MemoryPlan(for: ReferenceModel("sd1").folder, beside: ModelCompany(controls: [control]))
    }
    #expect(throws: ComponentError.self) { try plan(ControlCase.folder.appending(path: "sdxl")) }
    #expect(throws: ModelFilesError.self) { try plan(ReferenceModel("sd1").folder.appending(path: "vae")) }
    #expect(throws: ModelFilesError.self) { try plan(ControlCase.folder.appending(path: "nothing")) }
  }
}

/// ControlNets and T2I-Adapters in files of their own.
@Suite struct ControlFileTests {
  private func passes(_ name: String) throws -> [String: Tensor] {
    try readTensors(ControlCase.folder.appending(path: "reference/pass-\(name).safetensors"))
  }

  /// The names of the original code, with configurations that follow from shapes.
  @Test(
    .compares("T2I-Adapters in files of the original code", in: .files, with: "diffusers"),
    arguments: ["original-adapter", "original-adapter-xl"]) func adaptersOfTheOriginalCode(_ name: String) throws
  {
    let tensors = try passes(name)
    let adapter = try T2IAdapter.load(from: ControlCase.folder.appending(path: "\(name).safetensors"))
    let picture = try #require(tensors["input.controlnet_cond"]).channelsLast()
    let found = try adapter.features(of: picture, in: ExecutionContext())
    for (index, features) in found.enumerated() {
      expectClose(features, try #require(tensors["output.\(index)"]).channelsLast(), tolerance: 1e-4, "\(index)")
    }
  }

  @Test func controlNetsOfTheOriginalCode() throws {
    let file = ControlCase.folder.appending(path: "original.safetensors")
    let folder = ControlCase.folder.appending(path: "original")
    let tensors = try passes("original"), context = ExecutionContext()
    func residuals(_ url: URL) throws -> FeatureResiduals {
      let net = try ControlNetModel.load(from: url)
      let picture = try #require(tensors["input.controlnet_cond"]).channelsLast()
      var cache: (any Sendable)?
      return try net.residuals(
        ControlPass(
          latents: #require(tensors["input.sample"]).channelsLast(), timestep: 321,
          conditioning: Conditioning(hiddenStates: #require(tensors["input.encoder_hidden_states"])),
          features: net.features(of: picture, in: context), weight: 0.7), cache: &cache, in: context)
    }
    let (found, expected) = (try residuals(file), try residuals(folder))
    #expect(found.skips.map(\.elements) == expected.skips.map(\.elements))
    #expect(found.middle?.elements == expected.middle?.elements)
    // Without the prefix, and as diffusers' names in a single file.
    let temporary = try TemporaryFolder()
    let all = try SafetensorsFile(file)
    let bare = try all.tensors.reduce(into: [:]) {
      $0[String($1.key.dropFirst("control_model.".count))] = try all.tensor($1.key, shape: $1.value.shape)
    }
    let url = try temporary.write("bare.safetensors", SafetensorsWriter.encode(bare))
    #expect(try residuals(url).skips.map(\.elements) == expected.skips.map(\.elements))
    let diffusers = try residuals(folder.appending(path: "diffusion_pytorch_model.safetensors"))
    #expect(diffusers.skips.map(\.elements) == expected.skips.map(\.elements))
  }

  /// The configurations that follow from the shapes of the published sizes are diffusers' own.
  @Test(arguments: ["sd15", "sd21", "sdxl", "sdxl-small"]) func knowsThePublishedSizes(_ name: String) throws {
    struct Published: Decodable {
      let configuration: [String: JSONValue]
      let tensors: [String: [Int]]
    }
    let all = try JSONDecoder().decode([String: Published].self, from: Data(contentsOf: ControlCase.folder.appending(path: "shapes.json")))
    let expected = try #require(all[name]), temporary = try TemporaryFolder()
    let url = temporary.url.appending(path: "\(name).safetensors")
    try StableDiffusionCheckpointTests.sparse(expected.tensors, at: url)
    let files = try ModelFiles.open(url)
    #expect(try files.weights(of: "controlnet").names == Set(expected.tensors.keys))
    for (key, value) in try JSONValue.of(files, "controlnet") where key != "_class_name" {
      #expect(value.says(expected.configuration[key] ?? .null), "\(key): \(value), not \(String(describing: expected.configuration[key]))")
    }
    // Every tensor is asked for, and in its shape.
    let report = try LoadReport.load(from: files.extentSource(of: "controlnet"), in: ExecutionContext()) {
      try ControlNetModel(configuration: files.requiredConfiguration(of: "controlnet"), weights: $0)
    }.report
    #expect(report.unused == [])
  }

  /// What is given in another's place.
  @Test func mistakenFiles() throws {
    func error(_ body: () throws -> Void) -> String {
      do { try body() } catch { return "\(error)" }
      return "nothing"
    }
    let folder = ControlCase.folder
    for path in ["sd1", "original.safetensors", "sd1/diffusion_pytorch_model.safetensors"] {
      let found = error { _ = try StableDiffusion.load(from: folder.appending(path: path)) }
      #expect(found.contains("a ControlNetModel, which guides a model, not a model"), "\(path): \(found)")
    }
    for path in ["adapter", "original-adapter.safetensors"] {
      let found = error { _ = try StableDiffusion.load(from: folder.appending(path: path)) }
      #expect(found.contains("a T2IAdapter, which guides a model, not a model"), "\(path): \(found)")
    }
    let model = ReferenceModel("sd1").folder
    #expect(error { _ = try ControlNetModel.load(from: model) }.contains("has no ControlNetModel"))
    #expect(error { _ = try ControlNetModel.load(from: model.appending(path: "unet")) }.contains("has no ControlNetModel"))
    #expect(error { _ = try T2IAdapter.load(from: folder.appending(path: "sd1")) }.contains("has no T2IAdapter"))
    #expect(error { _ = try ControlNetModel.load(from: folder.appending(path: "nothing")) }.contains("no model at"))
  }

  /// A ControlNet for clips, as diffusers saves it: the file by itself, and the folder, whose class says it.
  @Test func sparseControlsAreRefused() throws {
    let folder = try TemporaryFolder()
    let file = folder.url.appending(path: "diffusion_pytorch_model.safetensors")
    let tensors = [
      "controlnet_cond_embedding.conv_in.weight": Tensor(shape: [8, 3, 3, 3]),
      "down_blocks.0.motion_modules.0.proj_in.weight": Tensor(shape: [8, 8]), "conv_in.weight": Tensor(shape: [8, 4, 3, 3]),
    ]
    try SafetensorsWriter.write(tensors, to: file)
    try folder.write("config.json", #"{"_class_name": "SparseControlNetModel"}"#)
    for url in [file, folder.url] {
      let error = #expect(throws: ModelFilesError.self) { try ControlNetModel.load(from: url) }
      #expect("\(error as Any)".contains(url == file ? "a SparseCtrl of AnimateDiff" : "has no ControlNetModel"), "\(error as Any)")
    }
  }
}
