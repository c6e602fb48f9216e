import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A run of diffusers with another guidance, as `Tests/Fixtures/models/make_guidance.py` describes it.
private struct GuidanceCase: Decodable, Sendable, CustomTestStringConvertible {
  var run: PipelineCase
  let pag: Perturbed?
  let sag: Float?
  /// b1, b2, s1, s2.
  let freeu: [Float]?
  let apg: Projected?
  let interval: [Double]?
  let thresholding: Thresholded?
  let renoising: Bool?

  struct Perturbed: Decodable, Sendable {
    let scale: Float
    let adaptive: Float?
    let layers: [String]
  }

  struct Projected: Decodable, Sendable {
    let eta: Float
    let momentum: Float?
    let norm_threshold: Float
  }

  struct Thresholded: Decodable, Sendable {
    let mimic: Float
    let percentile: Double
    let separate: Bool?
    let phi: Float?
  }

  private enum CodingKeys: CodingKey { case pag, sag, freeu, apg, interval, thresholding, renoising }

  init(from decoder: any Decoder) throws {
    run = try PipelineCase(from: decoder)
    run.home = "guidance"
    let values = try decoder.container(keyedBy: CodingKeys.self)
    pag = try values.decodeIfPresent(Perturbed.self, forKey: .pag)
    sag = try values.decodeIfPresent(Float.self, forKey: .sag)
    freeu = try values.decodeIfPresent([Float].self, forKey: .freeu)
    apg = try values.decodeIfPresent(Projected.self, forKey: .apg)
    interval = try values.decodeIfPresent([Double].self, forKey: .interval)
    thresholding = try values.decodeIfPresent(Thresholded.self, forKey: .thresholding)
    renoising = try values.decodeIfPresent(Bool.self, forKey: .renoising)
  }

  var testDescription: String { run.name }

  static func all() throws -> [GuidanceCase] {
    struct File: Decodable { let pipelines: [GuidanceCase] }
    return try JSONDecoder().decode(File.self, from: Data(contentsOf: ReferenceModel("guidance").folder.appending(path: "cases.json")))
      .pipelines
  }

  func request() throws -> GenerationRequest {
    var request = try run.request()
    let scale = Float(run.guidance)
    request.perturbedAttention = pag.map { PerturbedAttention(scale: $0.scale, adaptiveScale: $0.adaptive ?? 0, layers: $0.layers) }
    request.selfAttentionScale = sag
    request.freeU = freeu.map { FreeU(b1: $0[0], b2: $0[1], s1: $0[2], s2: $0[3]) }
    request.guidanceInterval = interval.map { $0[0]...$0[1] }
    if let apg {
      request.guidanceMethod = AdaptiveProjectedGuidance(
        scale: scale, eta: apg.eta, momentum: apg.momentum, normThreshold: apg.norm_threshold)
    }
    if let told = thresholding {
      request.guidanceMethod = DynamicThresholding(
        scale: scale, mimicScale: told.mimic, percentile: told.percentile, separatesChannels: told.separate ?? true, phi: told.phi ?? 1)
    }
    if renoising == true { request.guidanceMethod = RenoisingGuidance(scale: scale) }
    return request
  }
}

/// Kinds of guidance: the same latents as diffusers with theirs, places that go on, and what is refused.
@Suite struct GuidanceCaseTests {
  private static let cases = (try? GuidanceCase.all()) ?? []

  @Test func allCasesAreHere() { #expect(Self.cases.count == 27) }

  private static func given(_ name: String) throws -> GuidanceCase { try #require(cases.first { $0.run.name == name }) }

  @Test(.compares("Guidance of every kind", in: .tasks, with: "diffusers", unit: .deviation), arguments: cases)
  private func drawsWhatDiffusersDraws(_ given: GuidanceCase) async throws {
    try await PipelineCaseTests.expectDrawn(given.run, by: given.run.loadModel(), given.request())
  }

  /// What a guidance remembers, and what the passes of other rows have left, belongs to a place.
  @Test(arguments: ["apg", "pag-batch", "sag-batch", "interval", "cfgpp-euler-a"]) func placesGoOn(_ name: String) async throws {
    let given = try Self.given(name), model = try given.run.loadModel()
    var request = try given.request()
    if given.sag == nil { request.stepCaching = StepCaching(interval: 2) }
    let whole = try await model.pipeline.images(for: request)
    for stop in [1, 4] {
      var steps = try model.pipeline.generate(request).makeAsyncIterator()
      for _ in 0..<stop { _ = try await steps.next() }
      let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONEncoder().encode(#require(try steps.checkpoint)))
      var latents: Tensor?
      for try await event in try model.pipeline.generate(request, from: checkpoint) {
        if case .step(let step) = event { latents = step.latents }
      }
      #expect(try #require(latents).elements == Tensor.concatenated(whole.map(\.latents), axis: 0).elements, "after \(stop) steps")
    }
  }

  /// Passes are made for the rows of the request's guidance, so a place of another one does not fit.
  @Test func placesOfAnotherIntervalAreRefused() async throws {
    let given = try Self.given("interval"), model = try given.run.loadModel()
    var request = try given.request(), steps = try model.pipeline.generate(request).makeAsyncIterator()
    for _ in 0..<2 { _ = try await steps.next() }
    let checkpoint = try #require(try steps.checkpoint)
    for interval in [0.5...1.0, 0...0.1] {
      request.guidanceInterval = interval
      await #expect(throws: GenerationError.self) { for try await _ in try model.pipeline.generate(request, from: checkpoint) {} }
    }
  }

  /// Where one model goes on with what another began, the interval is one of both: the same model twice draws what it draws at once.
  @Test func anIntervalIsOfTheWholeDenoising() async throws {
    var model = try Self.given("pag").run.loadModel()
    try model.use(.ddim)
    var request = model.request("a cat", seed: 5)
    (request.width, request.height, request.steps, request.guidance) = (16, 16, 10, 5)
    func latents(_ request: GenerationRequest) async throws -> Tensor {
      var latents = Tensor(shape: [0])
      for try await case .step(let step) in try model.pipeline.generate(request) { latents = step.latents }
      return latents
    }
    var results: [[Float]] = []
    for interval in [0.2...0.7, 0.0...0.3, 0.6...1.0, 0.5...0.5] {
      request.guidanceInterval = interval
      let whole = try await latents(request)
      var (first, second) = (request, request)
      first.denoisingEnd = 0.5
      second.denoisingStart = 0.5
      second.task = ImageToImage(.latents(try await latents(first)))
      (second.width, second.height) = (nil, nil)
      let found = try await latents(second)
      #expect(found.elements == whole.elements, "\(interval)")
      results.append(whole.elements)
    }
    #expect(Set(results).count == 4)
  }

  @Test(arguments: ["freeu-pag-xl", "sag-batch"]) func sameBytesForAnyNumberOfThreads(_ name: String) async throws {
    let given = try Self.given(name), model = try given.run.loadModel()
    func drawn(_ threads: Int) async throws -> [Float] {
      try await model.pipeline.images(for: given.request(), in: ExecutionContext(threads: threads)).flatMap { $0.image.elements }
    }
    #expect(try await drawn(1) == drawn(2))
  }

  /// Where latents are scaled otherwise, they are degraded alike: DDIM and Euler's method go the same way, so pictures on it are the same.
  @Test func latentsOfAnyScaleAreDegraded() async throws {
    let given = try Self.given("sag-alone")
    func originals(_ scheduler: SchedulerKind, degrading: Bool = true) async throws -> [Tensor] {
      var model = try given.run.loadModel(), request = try given.request(), result: [Tensor] = []
      try model.use(scheduler, timesteps: .leading)
      if !degrading { request.selfAttentionScale = nil }
      for try await case .step(let step) in try model.pipeline.generate(request) {
        result.append(try #require(step.predictedOriginal))
      }
      return result
    }
    let (ddim, euler, plain) = (try await originals(.ddim), try await originals(.euler), try await originals(.ddim, degrading: false))
    #expect(ddim.count == given.run.steps && euler.count == ddim.count)
    for (index, expected) in ddim.enumerated() {
      expectClose(euler[index], expected, tolerance: 1e-3, "step \(index)")
      #expect(compare(plain[index].elements, expected.elements).error > 0.01)
    }
  }

  /// Kinds of guidance stand beside one another.
  @Test func bothKindsOfAttentionGoTogether() async throws {
    let given = try Self.given("sag"), model = try given.run.loadModel()
    func drawn(_ change: (inout GenerationRequest) -> Void) async throws -> [Float] {
      var request = try given.request()
      change(&request)
      return try await model.pipeline.images(for: request)[0].latents.elements
    }
    let results = try await [
      drawn { _ in }, drawn { $0.perturbedAttention = PerturbedAttention() }, drawn { $0.guidanceInterval = 0.2...0.6 },
      drawn { $0.guidanceMethod = AdaptiveProjectedGuidance(scale: 5, eta: 0) }, drawn { $0.forecast = PredictionForecast() },
      drawn { $0.tokenMerging = 0.5 },
    ]
    for (index, result) in results.enumerated() { #expect(results.firstIndex(of: result) == index) }
    #expect(try await drawn { $0.perturbedAttention = PerturbedAttention(scale: 0) } == results[0])
  }

  /// What changes nothing changes no bit.
  @Test func withoutEffectNothingChanges() async throws {
    let given = try Self.given("pag"), model = try given.run.loadModel(), plain = try given.run.request()
    func drawn(_ change: (inout GenerationRequest) -> Void) async throws -> [Float] {
      var request = plain
      change(&request)
      return try await model.pipeline.images(for: request).flatMap { $0.latents.elements }
    }
    let expected = try await drawn { _ in }
    #expect(try await drawn { $0.guidanceInterval = 0...1 } == expected)
    #expect(try await drawn { $0.guidanceMethod = DynamicThresholding(scale: 5, mimicScale: 5) } == expected)
    #expect(try await drawn { $0.selfAttentionScale = 0 } == expected)
    let unguided = try await drawn { $0.guidance = 1 }
    #expect(try await drawn { $0.guidanceInterval = 0.5...0.5 } == unguided)
    #expect(try await drawn { $0.guidanceMethod = AdaptiveProjectedGuidance(scale: 1) } == unguided)
    #expect(unguided != expected)
  }

  @Test func whatCannotBeIsRefused() throws {
    let model = try Self.given("pag").run.loadModel()
    func error(_ change: (inout GenerationRequest) -> Void) throws -> String {
      var request = model.request("a")
      change(&request)
      let error = #expect(throws: (any Error).self) { try model.pipeline.generate(request) }
      return error.map { "\($0)" } ?? ""
    }
    #expect(try error { $0.perturbedAttention = PerturbedAttention(layers: ["nowhere"]) }.contains("nowhere"))
    #expect(try error { $0.perturbedAttention = PerturbedAttention(layers: ["("]) }.contains("regular expression"))
    #expect(try error { $0.perturbedAttention = PerturbedAttention(layers: []) }.contains("layer"))
    for scale: Float in [.nan, -1, .infinity] {
      #expect(try !error { $0.perturbedAttention = PerturbedAttention(scale: scale) }.isEmpty)
    }
    for scale: Float in [.nan, -1, .infinity] { #expect(try error { $0.selfAttentionScale = scale }.contains("self-attention guidance")) }
    let both = try error { ($0.selfAttentionScale, $0.stepCaching) = (0.5, StepCaching(interval: 2)) }
    #expect(both.contains("Step caching has no self-attention guidance"))
    #expect(try !error { $0.guidanceInterval = 0.5...1.5 }.isEmpty)
    #expect(try !error { $0.freeU = FreeU(b1: .nan, b2: 1, s1: 1, s2: 1) }.isEmpty)
    // sd1's own scheduler is PNDM.
    #expect(try error { $0.guidanceMethod = RenoisingGuidance() }.contains("CFG++"))
  }

  @Test func aMiddleWithoutAttentionIsRefused() throws {
    let model = try DiffusionModel.load(from: ReferenceModel("ssd").folder)
    var request = model.request("a")
    request.selfAttentionScale = 0.75
    #expect {
      try model.pipeline.generate(request)
    } throws: { "\($0)" == "A U-Net without self-attention in its middle has no self-attention guidance; leave it out." }
  }
}
