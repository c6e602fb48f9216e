import Foundation
import LatentDiffusion
import Logging

/// The models that a server has: each is loaded once, when it is first asked for, and stays as long as there is room.
actor ModelShelf {
  /// What is known of a model from outside.
  struct Entry: Sendable {
    let name: String
    let isLoaded: Bool
    /// What it knows to draw; nil: nothing says it.
    let captions: [String]?
    /// Nil until the model has been loaded.
    let facts: ModelFacts?
  }

  private struct Loaded {
    var model: StableDiffusion
    let plan: MemoryPlan?
    /// Changes by LoRAs that were asked for lately, by their names and weights.
    var adaptations: [(loras: [LoraUse], adaptation: Adaptation)] = []
    var lastUse: ContinuousClock.Instant
  }

  nonisolated let models: [NamedFile]
  nonisolated let loras: [NamedFile]
  /// Bytes that the process may have resident; nil: no limit, and all models stay.
  private let limit: Int?
  private let weights: WeightForm?
  private let context: ExecutionContext
  private let logger: Logger
  private var loaded: [String: Loaded] = [:]
  private var facts: [String: ModelFacts] = [:]
  private static let mostAdaptations = 4
  /// What a plan counts for a program, and what a server takes beyond it once clients have come, as measured with two processors.
  private static let (programBytes, serverBytes) = (44_000_000, 20_000_000)
  /// Of the latter, what comes and goes.
  private static let fleetingBytes = 6_000_000

  init(
    models: [NamedFile], loras: [NamedFile], limit: Int?, weights: WeightForm?, context: ExecutionContext, logger: Logger
  ) throws(ServerSetupError) {
    guard !models.isEmpty else { throw .noModels }
    for files in [models, loras] {
      var names: Set<String> = []
      for file in files where !names.insert(file.name).inserted { throw .nameTaken(file.name) }
    }
    (self.models, self.loras, self.weights) = (models, loras, weights)
    self.limit = limit.map { $0 - Self.serverBytes }
    (self.context, self.logger) = (context, logger)
  }

  nonisolated var defaultModel: String { models[0].name }

  /// - Throws: `ServerError` where no model has the name.
  nonisolated func checkModel(_ name: String) throws(ServerError) {
    guard models.contains(where: { $0.name == name }) else {
      throw ServerError(
        .badRequest, "There is no model \(name.prefix(100)); there are: \(models.map(\.name).joined(separator: ", ")).", field: "model")
    }
  }

  /// - Throws: `ServerError` where no LoRA has the name.
  nonisolated func lora(_ name: String, field: String) throws(ServerError) -> NamedFile {
    guard let found = loras.first(where: { $0.name == name }) else {
      let names = loras.isEmpty ? "this server has none" : "there are: \(loras.map(\.name).joined(separator: ", "))"
      throw .field(field, "There is no LoRA \(name.prefix(100)); \(names).")
    }
    return found
  }

  var entries: [Entry] {
    models.map { Entry(name: $0.name, isLoaded: loaded[$0.name] != nil, captions: $0.captions, facts: facts[$0.name]) }
  }

  /// A text that names a file by its path, without the folders: clients need not know them.
  nonisolated func withoutFolders(_ text: String) -> String {
    (models + loras).reduce(text) { $0.replacing($1.url.deletingLastPathComponent().path(percentEncoded: false), with: "") }
  }

  /// The size that a model was made for, as far as plans for memory want to know it; nil without a limit, or where its files do not say it.
  func usualSize(_ name: String) throws -> PixelSize? {
    guard limit != nil, let file = models.first(where: { $0.name == name }) else { return nil }
    return try MemoryPlan.usualSize(of: file.url).size
  }

  var loadedNames: [String] { loaded.keys.sorted() }

  /// A model, loaded if it is not, with room for a picture of a size.
  ///
  /// - Parameter extent: nil: of the size that the model was made for.
  /// - Throws: `ServerError` where no model has the name, and what loading throws.
  func model(_ name: String, for extent: GenerationExtent?) async throws -> StableDiffusion {
    try checkModel(name)
    if var found = loaded[name], fits(extent, found.plan) {
      found.lastUse = .now
      loaded[name] = found
      return found.model
    }
    guard let file = models.first(where: { $0.name == name }) else { throw ServerError.stopping }
    loaded[name] = nil
    let plan = try await plan(for: file, extent)
    makeRoom(for: plan)
    let model = try await StableDiffusion.loaded(from: file.url, weights: weights, plan: plan, in: context)
    loaded[name] = Loaded(model: model, plan: plan, lastUse: .now)
    facts[name] = ModelFacts(model)
    return model
  }

  /// What LoRAs change of a model that `model` gave; nil where there are none.
  /// - Throws: `ServerError`, and what reading the files throws.
  func adaptation(of name: String, by loras: [LoraUse]) async throws -> Adaptation? {
    guard !loras.isEmpty, let found = loaded[name] else { return nil }
    if let kept = found.adaptations.first(where: { $0.loras == loras }) { return kept.adaptation }
    let files = try loras.map { try lora($0.name, field: "loras") }
    let model = found.model
    let (adaptation, reports) = try await context.run { context in
      try model.adaptation(by: zip(files, loras).map { AdapterUse(try Adapter(contentsOf: $0.url), weight: $1.strength) }, in: context)
    }
    for report in reports where !report.unused.isEmpty { logger.warning("\(LoadWarning.adapter(report))", metadata: ["model": "\(name)"]) }
    loaded[name]?.adaptations.append((loras, adaptation))
    if let count = loaded[name]?.adaptations.count, count > Self.mostAdaptations { loaded[name]?.adaptations.removeFirst() }
    return adaptation
  }

  private func fits(_ extent: GenerationExtent?, _ plan: MemoryPlan?) -> Bool {
    guard let plan, let extent else { return true }
    let (asked, planned) = (extent.size, plan.extent.size)
    return asked.width * asked.height <= planned.width * planned.height && (plan.extent.encodesPicture || !extent.encodesPicture)
  }

  private func plan(for file: NamedFile, _ extent: GenerationExtent?) async throws -> MemoryPlan? {
    guard let limit else { return nil }
    let (weights, threads) = (weights, context.threads)
    do {
      return try await context.run { _ in try MemoryPlan(for: file.url, extent, limit: limit, weights: weights, threads: threads) }
    } catch MemoryPlanError.limitTooSmall(_, let smallest, let extent) {
      // The operator's limit is of the whole server.
      throw MemoryPlanError.limitTooSmall(limit: limit + Self.serverBytes, smallest: smallest + Self.serverBytes, extent: extent)
    }
  }

  /// Lets models go that were not used for longest, until the process has room for the new one.
  private func makeRoom(for plan: MemoryPlan?) {
    guard let limit, let plan else { return }
    BufferPool.releaseIdle()
    let room = limit + Self.serverBytes - Self.fleetingBytes
    while let resident = ServerMetrics.residentBytes, resident + plan.predictedPeakBytes - Self.programBytes > room,
      let oldest = loaded.min(by: { $0.value.lastUse < $1.value.lastUse })?.key
    {
      logger.info("letting a model go", metadata: ["model": "\(oldest)"])
      loaded[oldest] = nil
      BufferPool.releaseIdle()
    }
  }
}

/// What a loaded model says of itself.
struct ModelFacts: Sendable, Codable {
  let width: Int?
  let height: Int?
  let steps: Int
  let guidance: Double
  let scheduler: String?
  let tasks: [String]

  init(_ model: StableDiffusion) {
    let pipeline = model.pipeline, size = pipeline.usualSize(inProportionsOf: PixelSize(width: 1, height: 1))
    (width, height) = (pipeline.defaultSize?.width ?? size?.width, pipeline.defaultSize?.height ?? size?.height)
    let request = model.request("")
    (steps, guidance, scheduler) = (request.steps, request.guidance, model.schedulerKind?.rawValue)
    let picture = Tensor(shape: [1, 1, 1, 3]), mask = Tensor(shape: [1, 1, 1, 1])
    let known: [any GenerationTask] = [
      TextToImage(), ImageToImage(.pixels(picture)), Inpainting(image: picture, mask: mask), InstructionEditing(picture),
    ]
    let names = known.filter { pipeline.takes($0) }.map(\.name)
    tasks = names + (names.contains("inpainting") ? ["outpainting"] : [])
  }
}

extension DiffusionPipeline {
  /// Whether the predictor has the channels that a task needs.
  func takes(_ task: any GenerationTask) -> Bool {
    task.inputChannels(latentChannels: autoencoder.latentChannels).contains(predictor.inputChannels)
  }
}
