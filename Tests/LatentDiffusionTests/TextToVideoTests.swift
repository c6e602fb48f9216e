import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Whole pipelines of ModelScope's text-to-video on tiny models: the same numbers drawn, and the same latents as diffusers.
@Suite struct TextToVideoTests {
  static let folder = fixtures.appending(path: "text-to-video")
  static let cases = (try? MotionCase.all(in: folder)) ?? []

  @Test func allCasesAreHere() { #expect(Self.cases.count == 14) }

  /// Does something with the folder of a model, which is gone afterwards.
  private static func withFolder<Result>(_ name: String = "modelscope", _ body: (URL) throws -> Result) throws -> Result {
    let copy = try MotionCase.copy(of: "sd2", with: folder.appending(path: name))
    return try withExtendedLifetime(copy) { try body(copy.folder) }
  }

  private static func model(_ name: String = "modelscope", adapters: [AdapterUse] = []) throws -> DiffusionModel {
    let model = try withFolder(name) { try DiffusionModel.load(from: $0, adapters: adapters) }
    #expect(model.warnings.isEmpty, "\(model.warnings)")
    return model
  }

  private static func model(_ given: MotionCase, adapters: [AdapterUse] = []) throws -> DiffusionModel {
    var model = try model(given.model, adapters: adapters)
    if let scheduler = given.run.scheduler { try model.use(SchedulerKind(named: scheduler)) }
    return model
  }

  @Test(.compares("Whole pipelines of text-to-video (ModelScope)", in: .tasks, with: "diffusers", unit: .deviation), arguments: cases)
  func drawsWhatDiffusersDraws(_ given: MotionCase) async throws {
    let adapters = try given.adapters()
    try await MotionCaseTests.expectDrawn(given, by: Self.model(given, adapters: adapters))
    guard !adapters.isEmpty else { return }
    let (model, (adaptation, reports)) = try Self.withFolder(given.model) {
      let model = try DiffusionModel.load(from: $0)
      return (model, try model.adaptation(by: adapters))
    }
    #expect(reports.allSatisfy { $0.unused.isEmpty })
    try await MotionCaseTests.expectDrawn(given, by: model, adaptation: adaptation)
  }

  @Test func sameBytesForAnyNumberOfThreads() async throws {
    let given = try #require(Self.cases.first { $0.run.name == "euler-a" }), model = try Self.model(given)
    func drawn(_ threads: Int) async throws -> [Float] {
      try await model.pipeline.images(for: given.request(), in: ExecutionContext(threads: threads)).flatMap { $0.image.elements }
    }
    #expect(try await drawn(1) == drawn(2))
  }

  /// What a scheduler remembers has the frames as pictures, and a place goes on with it in another process.
  @Test func placesGoOn() async throws {
    let given = try #require(Self.cases.first { $0.run.name == "batch" }), model = try Self.model(given), request = try given.request()
    let whole = try await model.pipeline.images(for: request)
    var steps = try model.pipeline.generate(request).makeAsyncIterator()
    for _ in 0..<3 { _ = try await steps.next() }
    let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONEncoder().encode(#require(try steps.checkpoint)))
    var latents: Tensor?
    for try await event in try model.pipeline.generate(request, from: checkpoint) {
      if case .step(let step) = event { latents = step.latents }
    }
    #expect(try #require(latents).elements == Tensor.concatenated(whole.map(\.latents), axis: 0).elements)
  }

  @Test func whatIsUsual() throws {
    let model = try Self.model(), predictor = model.pipeline.predictor, family = TextToVideoSDFamily()
    #expect(family.usualSettings(for: TextToVideo(), predictor: predictor) == GenerationSettings(steps: 50, guidance: 9))
    let video = VideoToVideo(Tensor(shape: [1, 2, 16, 16, 3]))
    #expect(family.usualSettings(for: video, predictor: predictor) == GenerationSettings(steps: 50, guidance: 15, strength: 0.6))
    var request = model.request("a")
    request.task = TextToVideo()
    #expect(try model.pipeline.latentShape(for: request) == [1, 16, 8, 8, 4])
  }

  @Test func whatItIsNotForIsRefused() throws {
    let model = try Self.model()
    #expect(throws: GenerationError.drawsClips(task: "text-to-image")) { try model.pipeline.generate(model.request("a")) }
    for frames in [0, -1, .max] {
      var request = model.request("a")
      request.task = TextToVideo(frames: frames)
      #expect(throws: GenerationError.self, "\(frames)") { try model.pipeline.generate(request) }
    }
    var request = model.request("a")
    request.task = TextToVideo(frames: 2)
    let net = try ControlNetModel.load(from: fixtures.appending(path: "controls/sd1"))
    request.controls = [Control(net, picture: Tensor(shape: [1, 16, 16, 3]))]
    let error = #expect(throws: ComponentError.self) { try model.pipeline.generate(request) }
    #expect("\(error as Any)".contains("layers for the frames of clips"), "\(error as Any)")
    let motion = #expect(throws: ComponentError.self) {
      try Self.withFolder {
        try DiffusionModel.load(from: $0, replacing: ["motion_adapter": MotionCase.folder.appending(path: "deep")])
      }
    }
    #expect("\(motion as Any)".contains("layers for the frames of clips"), "\(motion as Any)")
  }

  @Test func networksOfOtherFamiliesAreRefused() throws {
    let pictures = ReferenceModel("sd2").folder
    try Self.withFolder { clips in
      for (model, unet) in [(clips, pictures), (pictures, clips)] {
        let error = #expect(throws: ModelFilesError.self) { try DiffusionModel.load(from: model, replacing: ["unet": unet]) }
        #expect("\(error as Any)".contains("a model whose unet is a UNet"), "\(error as Any)")
      }
    }
  }

  /// A plan follows a pass with all its frames, and a model is described.
  @Test func plansAndDescriptions() throws {
    try Self.withFolder { folder in
      func plan(_ frames: Int?) throws -> Int {
        var extent = GenerationExtent(size: PixelSize(width: 64, height: 64))
        extent.frames = frames
        return try MemoryPlan(for: folder, extent, limit: nil).predictedPeakBytes
      }
      #expect(try plan(1) < plan(16) && plan(nil) == plan(16))
      let report = try DiffusionModel.inspect(folder)
      #expect(report.family.contains("ModelScope"), "\(report.family)")
    }
  }
}
