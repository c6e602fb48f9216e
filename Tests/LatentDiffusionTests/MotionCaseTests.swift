import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A run of one of diffusers' pipelines for clips on a tiny model, as `Tests/Fixtures/motion/make_motion.py` and
/// `Tests/Fixtures/text-to-video/make_text_to_video.py` describe it.
struct MotionCase: Decodable, Sendable, CustomTestStringConvertible {
  let run: PipelineCase
  let model: String
  let motion: String?
  let frames: Int
  let video: [String]?
  /// Files with their weights.
  let loras: [String: Double]?
  let control: Steering?
  /// In windows of FreeNoise.
  let freeNoise: Windows?
  /// Prompts of later frames.
  let later: [String: String]?

  struct Windows: Decodable, Sendable {
    let length: Int
    let stride: Int
  }

  /// A ControlNet with a picture for each frame.
  struct Steering: Decodable, Sendable {
    let network: String
    let weight: Double
    let pictures: [String]
  }

  /// Where it lies.
  private(set) var home = folder

  private enum CodingKeys: String, CodingKey { case model, motion, frames, video, loras, control, later, freeNoise = "free_noise" }

  init(from decoder: any Decoder) throws {
    run = try PipelineCase(from: decoder)
    let values = try decoder.container(keyedBy: CodingKeys.self)
    model = try values.decode(String.self, forKey: .model)
    motion = try values.decodeIfPresent(String.self, forKey: .motion)
    frames = try values.decode(Int.self, forKey: .frames)
    video = try values.decodeIfPresent([String].self, forKey: .video)
    loras = try values.decodeIfPresent([String: Double].self, forKey: .loras)
    control = try values.decodeIfPresent(Steering.self, forKey: .control)
    freeNoise = try values.decodeIfPresent(Windows.self, forKey: .freeNoise)
    later = try values.decodeIfPresent([String: String].self, forKey: .later)
  }

  var testDescription: String { run.name }

  static let folder = fixtures.appending(path: "motion")

  static func all(in home: URL = folder) throws -> [MotionCase] {
    struct File: Decodable { let pipelines: [MotionCase] }
    return try JSONDecoder().decode(File.self, from: Data(contentsOf: home.appending(path: "cases.json"))).pipelines.map {
      var given = $0
      given.home = home
      return given
    }
  }

  func reference() throws -> [String: Tensor] {
    try run.files.reduce(into: [:]) { all, file in
      all.merge(try readTensors(home.appending(path: "reference/\(file)"))) { first, _ in first }
    }
  }

  /// What AnimateDiffPipeline saves.
  static func saved() throws -> ModelCopy { try copy(of: "sd1", with: folder.appending(path: "saved")) }

  /// A model with another U-Net and another scheduler.
  static func copy(of model: String, with own: URL) throws -> ModelCopy {
    let copy = try ModelCopy(model)
    for item in ["unet", "scheduler", "model_index.json"] {
      try copy.remove(item)
      try FileManager.default.copyItem(at: own.appending(path: item), to: copy.folder.appending(path: item))
    }
    return copy
  }

  func request() throws -> GenerationRequest {
    var request = try run.request()
    request.task = TextToVideo(frames: frames)
    if let freeNoise { request.frameWindows = try FrameWindows(length: freeNoise.length, stride: freeNoise.stride, method: .freeNoise) }
    request.laterPrompts = try (later ?? [:]).map { FramePrompt(try #require(Int($0)), Prompt($1)) }
    func pictures(_ names: [String]) throws -> Tensor {
      let all = try names.map { try Picture(contentsOf: fixtures.appending(path: "models/inputs/\($0)")).tensor() }
      return Tensor.concatenated(all, axis: 0)
    }
    if let control {
      let net = try ControlNetModel.load(from: fixtures.appending(path: "controls/\(control.network)"))
      request.controls = [Control(net, picture: try pictures(control.pictures), weight: control.weight)]
    }
    if let video {
      let all = try pictures(video)
      request.task = VideoToVideo(all.reshaped(Shape([1] + all.shape.dimensions)), strength: run.strength ?? 0.8)
    }
    return request
  }

  /// - Parameter others: files in the place of others.
  func adapters(replacing others: [String: String] = [:]) throws -> [AdapterUse] {
    try (loras ?? [:]).sorted { $0.key < $1.key }.map {
      AdapterUse(try Adapter(contentsOf: home.appending(path: others[$0.key] ?? $0.key)), weight: $0.value)
    }
  }
}

/// Whole AnimateDiff pipelines on tiny models: the same numbers drawn, and the same latents as diffusers.
@Suite struct MotionCaseTests {
  static let cases = (try? MotionCase.all()) ?? []

  @Test func allCasesAreHere() { #expect(Self.cases.count == 17) }

  private static func model(_ given: MotionCase, motion: URL? = nil, adapters: [AdapterUse] = []) throws -> DiffusionModel {
    let copy = given.model == "saved" ? try MotionCase.saved() : nil
    var model = try withExtendedLifetime(copy) {
      try DiffusionModel.load(
        from: copy?.folder ?? ReferenceModel(given.model).folder,
        replacing: copy == nil ? ["motion_adapter": motion ?? MotionCase.folder.appending(path: #require(given.motion))] : [:],
        adapters: adapters)
    }
    #expect(model.warnings.isEmpty, "\(model.warnings)")
    if let scheduler = given.run.scheduler { try model.use(SchedulerKind(named: scheduler)) }
    return model
  }

  /// Expects what diffusers drew. Its latents are `[N, 4, F, h, w]`.
  static func expectDrawn(_ given: MotionCase, by model: DiffusionModel, adaptation: Adaptation? = nil) async throws {
    let expected = try given.reference(), record = RecordedNoise.Record()
    var request = try given.request()
    request.adaptation = adaptation
    request.generator = { RecordedNoise(seed: $0, record: record) }
    var timesteps: [Float] = []
    func compareLatents(_ latents: Tensor, _ name: String) throws -> Float? {
      guard let reference = expected[name] else { return nil }
      let difference = compare(latents.permuted([0, 4, 1, 2, 3]).elements, reference.elements)
      let relative = difference.largest / standardDeviation(reference.elements)
      expect(error: relative, atMost: PipelineCaseTests.tolerance, "\(name): \(difference)", detail: given.run.pipeline)
      return relative
    }
    let images = try await model.pipeline.images(for: request) { step in
      timesteps.append(step.timestep)
      _ = try compareLatents(step.latents, "latents.\(step.index)")
    }
    #expect(compare(timesteps, given.run.timesteps).error <= 1e-6)
    #expect(record.draws.map(\.count) == given.run.draws.map { $0.reduce(1, *) }, "what was drawn")
    for (index, draw) in record.draws.enumerated() {
      if let drawn = expected["draw.\(index)"] { #expect(compare(draw, drawn.elements, absolute: 1e-5).isTolerable, "draw \(index)") }
    }
    let clips = given.run.prompts.count
    #expect(images.map(\.frame) == (0..<clips).flatMap { _ in 0..<given.frames })
    #expect(images.map(\.index) == (0..<clips).flatMap { Array(repeating: $0, count: given.frames) })
    let latents = Tensor.concatenated(images.map(\.latents), axis: 0)
    let all = latents.reshaped(Shape([clips, given.frames] + latents.shape.dimensions.dropFirst()))
    let final = try #require(try compareLatents(all, "latents"))
    let outer = Tensor.concatenated(images.filter { [0, given.frames - 1].contains($0.frame) }.map(\.image), axis: 0).channelsFirst()
    let pictures = try #require(expected["frames"])
    // The reference has the only frame of a clip twice.
    let shown = given.frames == 1 ? outer.repeated(2) : outer
    let found = compare(shown.elements, pictures.elements, absolute: 1e-3)
    #expect(found.isTolerable, "frames: \(found)")
    print("\(given.run.name): latents \(final) of their deviation, frames \(found.largest)")
  }

  @Test(.compares("Whole pipelines of AnimateDiff", in: .tasks, with: "diffusers", unit: .deviation), arguments: cases)
  func drawsWhatDiffusersDraws(_ given: MotionCase) async throws {
    let adapters = try given.adapters()
    try await Self.expectDrawn(given, by: Self.model(given, adapters: adapters))
    guard !adapters.isEmpty else { return }
    // Added at run time, the same; and under the names of the original code.
    let model = try Self.model(given), (adaptation, reports) = try model.adaptation(by: adapters)
    #expect(reports.allSatisfy { $0.unused.isEmpty })
    try await Self.expectDrawn(given, by: model, adaptation: adaptation)
    let original = try given.adapters(replacing: ["motion-lora.safetensors": "original-lora.safetensors"])
    try await Self.expectDrawn(given, by: Self.model(given, adapters: original))
  }

  @Test(.compares("Motion modules under the names of the original code", in: .files, with: "diffusers", unit: .equality))
  func originalFilesAreConverted() async throws {
    let file = MotionCase.folder.appending(path: "original.safetensors")
    let original = try ModelFiles.open(file), converted = try ModelFiles.open(MotionCase.folder.appending(path: "v1-original"))
    let name = try #require(converted.components.first)
    let (found, expected) = (try original.weights(of: "motion_adapter"), try converted.weights(of: name))
    let names = expected.names.filter { !$0.hasSuffix("pos_embed.pe") }
    expectSame(found.names, names)
    let shapes = try readTensors(MotionCase.folder.appending(path: "v1-original/diffusion_pytorch_model.safetensors")).mapValues(\.shape)
    for name in names {
      let shape = try #require(shapes[name])
      expectSame(try found.tensor(name, shape: shape).decoded().elements, try expected.tensor(name, shape: shape).decoded().elements, name)
    }
    let configuration = try MotionAdapter.load(from: file).configuration
    #expect(configuration.frames == 24)
    // Whole pipelines draw the same but for the positions, which the folder has as float16.
    let given = try #require(Self.cases.first { $0.run.name == "v1-original" })
    let latents = try await Self.model(given, motion: file).pipeline.images(for: given.request())
    #expect(latents.count == given.frames)
  }

  @Test func severalClipsAndPlaces() async throws {
    let given = try #require(Self.cases.first { $0.run.name == "v2-batch" }), model = try Self.model(given)
    var request = try given.request()
    request.steps = 3
    request.previewInterval = 1
    let whole = try await model.pipeline.images(for: request, in: ExecutionContext(threads: 1)) { step in
      #expect(step.latents.shape == [2, 3, 8, 8, 4] && step.preview?.shape == [2, 3, 8, 8, 3])
    }
    var steps = try model.pipeline.generate(request, in: ExecutionContext(threads: 2)).makeAsyncIterator()
    _ = try await steps.next()
    let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONEncoder().encode(#require(try steps.checkpoint)))
    var latents: Tensor?
    for try await event in try model.pipeline.generate(request, from: checkpoint) {
      if case .step(let step) = event { latents = step.latents }
    }
    #expect(try #require(latents).elements == Tensor.concatenated(whole.map(\.latents), axis: 0).elements)
  }

  @Test func filesThatAreNoMotionModules() throws {
    func expectRefused(_ file: URL, _ words: String) {
      let error = #expect(throws: (any Error).self, "\(file)") {
        try DiffusionModel.load(from: ReferenceModel("sd1").folder, replacing: ["motion_adapter": file])
      }
      #expect("\(error as Any)".contains(words), "\(error as Any)")
    }
    expectRefused(MotionCase.folder.appending(path: "motion-lora.safetensors"), "a LoRA")
    expectRefused(MotionCase.folder.appending(path: "xl"), "does not fit")
    expectRefused(ReferenceModel("sd1").folder.appending(path: "vae"), "AutoencoderKL")
    expectRefused(fixtures.appending(path: "controls/original.safetensors"), "motion_adapter")
    expectRefused(MotionCase.folder.appending(path: "cases.json"), "JSON")
    let error = #expect(throws: (any Error).self) {
      try DiffusionModel.load(from: MotionCase.folder.appending(path: "original.safetensors"))
    }
    #expect("\(error as Any)".contains("a motion module"), "\(error as Any)")
  }

  @Test func framesAreCheckedBeforeAnythingIsComputed() throws {
    let model = try Self.model(#require(Self.cases.first { $0.motion == "v1" }))
    for frames in [0, -1, 25, 1_000_000] {
      var request = model.request("a")
      request.task = TextToVideo(frames: frames)
      #expect(throws: GenerationError.outOfRange(name: "The number of frames", value: "\(frames)", allowed: "from 1 to 24")) {
        try model.pipeline.generate(request)
      }
    }
    #expect(throws: GenerationError.drawsClips(task: "text-to-image")) { try model.pipeline.generate(model.request("a")) }
    var request = model.request("a")
    request.task = TextToVideo()
    #expect(try model.pipeline.latentShape(for: request) == [1, 16, 8, 8, 4])
    let pictures = try DiffusionModel.load(from: ReferenceModel("sd1").folder)
    #expect(throws: GenerationError.drawsPictures(task: "text-to-video")) { try pictures.pipeline.generate(request) }
  }

  /// What one window holds is the same as without windows, to the last bit where the passes are the same.
  @Test func oneWindowIsNone() async throws {
    let given = try #require(Self.cases.first { $0.run.name == "v2" }), model = try Self.model(given)
    var request = try given.request()
    (request.task, request.steps) = (TextToVideo(frames: 5), 2)
    let plain = try await model.pipeline.images(for: request).map(\.latents.elements)
    for method: FrameWindows.Method in [.passes, .loopedPasses, .freeNoise] {
      request.frameWindows = try FrameWindows(length: 5, method: method)
      let found = try await model.pipeline.images(for: request).map(\.latents.elements)
      #expect(found == plain, "\(method)")
    }
  }

  /// The same prompt at all frames is the same as one for the clip, and passes of windows take texts of their own frames.
  @Test func promptsTravel() async throws {
    let given = try #require(Self.cases.first { $0.run.name == "v2" }), model = try Self.model(given)
    var request = try given.request()
    (request.task, request.steps) = (TextToVideo(frames: 7), 2)
    request.frameWindows = try FrameWindows(length: 4, stride: 2)
    func latents() async throws -> [[Float]] { try await model.pipeline.images(for: request).map(\.latents.elements) }
    let plain = try await latents()
    request.laterPrompts = [FramePrompt(3, request.prompts[0]), FramePrompt(6, request.prompts[0])]
    for (a, b) in zip(plain, try await latents()) { #expect(compare(b, a, absolute: 1e-4).isTolerable) }
    request.laterPrompts = [FramePrompt(3, "a boat at sea")]
    let travelled = try await latents()
    #expect(travelled[0] != plain[0] && travelled[6] != plain[6])
    // In any order, and with as many threads as one likes.
    request.laterPrompts = [FramePrompt(5, "a red apple"), FramePrompt(3, "a boat at sea")]
    let twice = try await model.pipeline.images(for: request, in: ExecutionContext(threads: 1)).map(\.latents.elements)
    request.laterPrompts.reverse()
    let again = try await model.pipeline.images(for: request, in: ExecutionContext(threads: 2)).map(\.latents.elements)
    #expect(twice == again)
  }

  /// Frames differ as much where windows meet as elsewhere.
  @Test func windowsHaveNoSeams() async throws {
    let given = try #require(Self.cases.first { $0.run.name == "v2" }), model = try Self.model(given)
    var request = try given.request()
    (request.task, request.steps) = (TextToVideo(frames: 24), 6)
    for windows in [try FrameWindows(length: 8, stride: 6), try FrameWindows(length: 8, stride: 6, method: .loopedPasses)] {
      request.frameWindows = windows
      let frames = try await model.pipeline.images(for: request).map(\.latents.elements)
      func change(_ frame: Int) -> Float { zip(frames[frame], frames[(frame + 1) % 24]).reduce(0) { $0 + abs($1.0 - $1.1) } }
      func mean(_ changes: [Float]) -> Float { changes.reduce(0, +) / Float(changes.count) }
      // Windows of the first step begin at multiples of 6, and end two frames after those.
      let edges = Set([5, 7, 11, 13, 17, 19]), seams = mean(edges.map(change)),
        others = mean((0..<23).filter { !edges.contains($0) }.map(change))
      #expect(seams / others < 1.3, "\(windows.method): \(seams) across, \(others) inside")
      if windows.method == .loopedPasses { #expect(change(23) / others < 1.3, "from the last frame to the first: \(change(23))") }
      print("\(windows.method): \(seams / others) times as much change across seams as inside")
    }
  }

  /// Draws the most likely latents, and no noise.
  private struct Silence: NoiseSource {
    mutating func normal(_ count: Int) -> [Float] { Array(repeating: 0, count: count) }
  }

  @Test(arguments: [1, 0.6]) func firstFramesStay(strength: Double) async throws {
    let given = try #require(Self.cases.first { $0.run.name == "v2" }), model = try Self.model(given)
    let picture = try Picture(contentsOf: fixtures.appending(path: "models/inputs/picture.png")).tensor()
    var request = try given.request()
    (request.task, request.steps) = (FirstFrameToVideo(picture, frames: 3, strength: strength), 4)
    let drawn = try await model.pipeline.images(for: request)
    #expect(Set(drawn.map(\.latents.elements)).count == 3)
    request.generator = { _ in Silence() }
    let frames = try await model.pipeline.images(for: request), still = try await model.pipeline.encode(picture)
    #expect(frames.map(\.frame) == [0, 1, 2] && frames[0].latents.elements == still.elements)
    #expect(frames[1].latents.elements != still.elements)
  }

  @Test func windowsAreChecked() throws {
    let model = try Self.model(#require(Self.cases.first { $0.motion == "v1" }))
    var request = model.request("a")
    request.task = TextToVideo(frames: 12)
    func expectRefused(_ windows: FrameWindows?, _ words: String) {
      request.frameWindows = windows
      let error = #expect(throws: (any Error).self) { try model.pipeline.generate(request) }
      #expect("\(error as Any)".contains(words), "\(error as Any)")
    }
    expectRefused(try FrameWindows(length: 13), "from 1 to 12")
    request.task = TextToVideo(frames: 40)
    expectRefused(nil, "from 1 to 24")
    expectRefused(try FrameWindows(length: 25), "from 1 to 24")
    request.stepCaching = StepCaching(interval: 2)
    expectRefused(try FrameWindows(length: 16), "step caching")
    request.stepCaching = nil
    for frames in [[40], [0], [3, 3], [-1]] {
      request.laterPrompts = frames.map { FramePrompt($0, "b") }
      expectRefused(try FrameWindows(length: 16), "from 1 to 39, and each only once")
    }
    request.laterPrompts = [FramePrompt(3, "b")]
    request.prompts = ["a", "c"]
    expectRefused(try FrameWindows(length: 16), "number of prompts")
    var still = try DiffusionModel.load(from: ReferenceModel("sd1").folder).request("a")
    still.frameWindows = try FrameWindows()
    #expect(throws: GenerationError.self) { try DiffusionModel.load(from: ReferenceModel("sd1").folder).pipeline.generate(still) }
    still.frameWindows = nil
    still.laterPrompts = [FramePrompt(1, "b")]
    #expect(throws: GenerationError.self) { try DiffusionModel.load(from: ReferenceModel("sd1").folder).pipeline.generate(still) }
  }

  /// A plan follows a pass with all its frames, and a model is described with its motion.
  @Test func plansAndDescriptions() throws {
    let parts = ["motion_adapter": MotionCase.folder.appending(path: "v2")], url = ReferenceModel("sd1").folder
    func plan(_ frames: Int?) throws -> MemoryPlan {
      var extent = GenerationExtent(size: PixelSize(width: 64, height: 64))
      extent.frames = frames
      return try MemoryPlan(for: url, replacing: frames == nil ? [:] : parts, extent, limit: nil)
    }
    let (one, sixteen) = (try plan(1).predictedPeakBytes, try plan(16).predictedPeakBytes)
    #expect(sixteen > one, "\(one), \(sixteen)")
    #expect(try DiffusionModel.inspect(url, replacing: parts).family.contains("motion"))
    let saved = try MotionCase.saved()
    let report = try withExtendedLifetime(saved) { try DiffusionModel.inspect(saved.folder) }
    #expect(report.family.contains("motion"))
  }
}
