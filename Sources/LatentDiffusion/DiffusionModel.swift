import LatentDiffusionComponents
import Foundation
import Pipeline
import Schedulers
import Tensor
import TextEncoder
import LatentDiffusionWeights
import Autoencoder

/// A model, assembled from its files as its family says: the one place where the modules meet.
///
/// ```swift
/// let model = try StableDiffusion.load(from: URL(filePath: "stable-diffusion-v1-5"))
/// let images = try await model.pipeline.images(for: model.request("a red apple"))
/// ```
public struct DiffusionModel: Sendable {
  /// What makes pictures, with the model's own scheduler.
  public var pipeline: DiffusionPipeline
  /// What the model is.
  public let family: any ModelFamily
  /// The scheduler in use: the model's own until `use` takes another. Nil where the model's own is none that is known, or cannot be used: every
  /// generation throws `schedulerProblem` then, until `use` takes another.
  public private(set) var schedulerKind: SchedulerKind?
  /// Why the model's own scheduler cannot be used; nil where it can.
  public let schedulerProblem: SchedulerError?
  /// What `scheduler_config.json` says, under the class that `model_index.json` names, which decides, and with the spacings that `use` was asked for.
  public private(set) var schedulerConfiguration: SchedulerConfiguration
  /// The same without those.
  private var ownConfiguration: SchedulerConfiguration
  private var isSchedulerExchanged = false
  /// What it was loaded with.
  let plan: MemoryPlan?
  /// What the model recommends for what a request leaves open.
  public let defaults: GenerationDefaults
  /// For each component the tensors of its files that nothing asked for.
  public let reports: [String: LoadReport]
  /// Parts of the files that are not used and may matter. A program should show them to the person who loads the model.
  public internal(set) var warnings: [LoadWarning]
  /// What became of the adapters that were given at loading.
  public var adapterReports: [AdapterReport] { source.reports }
  let identity = Adaptation.Model()
  package let source: AdaptableFiles

  /// The tokenizer of a model with one CLIP text encoder; nil for others.
  public var tokenizer: CLIPTokenizer? { (pipeline.conditioner as? CLIPTextConditioner)?.tokenizer }

  /// Reads a model: a folder in diffusers' layout, or a single `.safetensors` file in a layout that a family knows.
  ///
  /// - Parameters:
  ///   - url: the folder or the file.
  ///   - parts: components from other files, by their names (`vae`), as `ModelFiles.open` takes them. A plan is made with the same.
  ///   - weights: the form in which the weights are held, whatever the files have: each tensor is converted when its layer is made, so that
  ///     the model is never there twice. Nil holds them as the files have them, which loads fastest, and components that
  ///     are no larger than 32 MiB then as float32, which computes fastest.
  ///   - plan: what is kept in memory and what is not. Its form of the weights is taken; requests that would go beyond its limit are refused.
  ///     Weights that it streams are read as long as the model lives: the file must stay as it is.
  ///   - adapters: merged into the weights, so that they cost nothing afterwards; to weights that the plan streams, changes of low rank are added in every
  ///     generation. `adaptation(by:)` applies adapters to single requests instead.
  ///   - embeddings: whose names become words of prompts.
  ///   - registry: the classes and families that are known.
  ///   - context: whose threads load, and whose cancellation ends it.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`, `WeightErrors`, `TokenizerError`, `SchedulerError`,
  ///   `CLIPTextError`, `ComponentError`, `AdapterError`, `TextualInversionError`, `CancellationError`.
  public static func load(
    from url: URL, replacing parts: [String: URL] = [:], weights: WeightForm? = nil, plan: MemoryPlan? = nil, adapters: [AdapterUse] = [],
    embeddings: [TextualInversion] = [], registry: ModelRegistry = .standard, in context: ExecutionContext = ExecutionContext()
  ) throws -> DiffusionModel {
    let model = try context.observed(Work(.loadingModel, url.lastPathComponent)) {
      let files = try ModelFiles.open(url, replacing: parts, registry: registry)
      return try DiffusionModel(
        files, of: registry.family(of: files), weights: plan?.weights ?? weights, plan: plan, adapters: adapters, embeddings: embeddings,
        in: context)
    }
    for warning in model.warnings { context.workObserver?.warned("\(warning)") }
    return model
  }

  /// The same on the engine's threads, for programs that must not wait: nothing of the caller's is blocked, and cancelling the task ends it.
  ///
  /// ```swift
  /// let model = try await StableDiffusion.loaded(from: URL(filePath: "stable-diffusion-v1-5"))
  /// ```
  /// - Throws: what `load` throws.
  public static func loaded(
    from url: URL, replacing parts: [String: URL] = [:], weights: WeightForm? = nil, plan: MemoryPlan? = nil, adapters: [AdapterUse] = [],
    embeddings: [TextualInversion] = [], registry: ModelRegistry = .standard, in context: ExecutionContext = ExecutionContext()
  ) async throws -> DiffusionModel {
    try await context.run {
      try load(
        from: url, replacing: parts, weights: weights, plan: plan, adapters: adapters, embeddings: embeddings, registry: registry, in: $0)
    }
  }

  private init(
    _ files: ModelFiles, of family: any ModelFamily, weights form: WeightForm?, plan: MemoryPlan?, adapters: [AdapterUse],
    embeddings: [TextualInversion], in context: ExecutionContext
  ) throws {
    self.family = family
    var parts = try family.accessories(of: files)
    var reports: [String: LoadReport] = [:], forms: [String: WeightForm?] = [:]
    let match = adapters.isEmpty ? .none : try AdapterMatch(adapters, targets: family.adapterTargets(files))
    let (merged, added) = match.parted(streamed: plan?.streamedParameters ?? [:])
    for part in family.parts(of: files) where part.role != .accessory {
      let form = if let plan { plan.form(of: part.name) } else { try form ?? files.usualForm(of: part.name) }
      forms[part.name] = form
      let weights = try files.weights(of: part.name, as: form, adaptedBy: merged, in: context)
      (parts[part.name], reports[part.name]) = try files.make(
        part.name, from: weights, residency: plan?.residency(of: part.name) ?? .packed, in: context)
    }
    let unlearned = try embeddings.compactMap { try $0.extend(&parts) }
    self.reports = reports
    self.plan = plan
    source = AdaptableFiles(files: files, merged: merged, added: added, reports: match.reports, forms: forms)
    warnings =
      Self.warnings(files, of: family, reports) + match.reports.filter { !$0.unused.isEmpty }.map(LoadWarning.adapter)
      + unlearned
    var assembly = try family.assembled(ModelParts(parts))
    let decodesQuickly = assembly.decodesQuickly
    assembly.autoencoder = TiledAutoencoder(assembly.autoencoder, tiling: plan?.tiling ?? .automatic)
    (ownConfiguration, schedulerKind, schedulerProblem) = try Self.scheduler(of: files)
    schedulerConfiguration = ownConfiguration
    defaults = try GenerationDefaults(json: files.generationDefaults)
    pipeline = DiffusionPipeline(
      predictor: assembly.predictor, autoencoder: assembly.autoencoder, conditioner: assembly.conditioner,
      schedule: { _, _, _ in throw SchedulerError.missingClassName })
    pipeline.imageConditioners = assembly.imageConditioners
    pipeline.usual = { [defaults, predictor = assembly.predictor] task in
      var usual = family.usualSettings(for: task, predictor: predictor)
      (usual.steps, usual.guidance) = (defaults.steps ?? usual.steps, defaults.guidance ?? usual.guidance)
      return usual
    }
    pipeline.decodesPreviews = decodesQuickly
    pipeline.pictureNoise = assembly.pictureNoise
    pipeline.scalesPictures = assembly.scalesPictures
    if let plan { pipeline.admission = { try plan.admit($0) } }
    pipeline.model = identity
    pipeline.content = try source.content(of: family.parts(of: files).map(\.name), adapters: adapters, embeddings: embeddings)
    pipeline.adaptation = added.components.isEmpty ? nil : try adaptation(by: added, in: context)
    if let width = defaults.width, let height = defaults.height { pipeline.defaultSize = PixelSize(width: width, height: height) }
    makeSchedule()
  }

  /// Lets another scheduler take the place of the model's own, as `from_config` does: what the model's file says holds for it too,
  /// and about what the file does not say it has its own defaults.
  ///
  /// - Parameters:
  ///   - kind: nil keeps the scheduler that is in use.
  ///   - spacing: how its σ fall; nil for what the model's file says.
  ///   - timesteps: where its timesteps lie; nil for what the model's file says.
  ///   - betas: how the noise of the training grew; nil for what the model's file says. Motion modules were trained with `linear`, whatever the model was
  ///     that they are added to.
  ///   - sampling: η, churn, and steps that are given one by one; nil leaves what it has. A request's own go before.
  ///   - algorithm: of a solver that has several; nil for what the model's file says.
  /// - Throws: `SchedulerError` where the scheduler does not have a spacing or a table, or there is none to keep.
  public mutating func use(
    _ kind: SchedulerKind? = nil, spacing: SigmaSpacing? = nil, timesteps: TimestepSpacing? = nil, betas: BetaSchedule? = nil,
    sampling: SamplingSettings? = nil, algorithm: SolverAlgorithm? = nil
  ) throws(SchedulerError) {
    guard let used = kind ?? schedulerKind else { throw schedulerProblem ?? .missingClassName }
    var configuration = try used.spacing(ownConfiguration, sigmas: spacing, timesteps: timesteps)
    configuration.betaSchedule = betas?.rawValue ?? configuration.betaSchedule
    configuration.sampling = sampling ?? schedulerConfiguration.sampling
    if let algorithm { configuration.use(algorithm) }
    if betas != nil || algorithm != nil || configuration.sampling != SamplingSettings() {
      do { _ = try used.make(configuration: configuration, steps: configuration.sampling.count ?? 4) } catch SchedulerError.unusableSteps {}
    }
    schedulerConfiguration = configuration
    (schedulerKind, isSchedulerExchanged) = (used, isSchedulerExchanged || kind != nil)
    makeSchedule()
  }

  /// What the network predicts, as the model's files say (`prediction_type`). A single file may not say it, or wrongly: whoever knows better sets it.
  public var predictionType: PredictionType {
    get { schedulerConfiguration.predictionType.flatMap(PredictionType.init(named:)) ?? .epsilon }
    set {
      schedulerConfiguration.predictionType = newValue.rawValue
      ownConfiguration.predictionType = newValue.rawValue
      makeSchedule()
    }
  }

  private mutating func makeSchedule() {
    let choice = schedulerKind.map {
      SchedulerChoice(kind: $0, configuration: schedulerConfiguration, isExchanged: isSchedulerExchanged)
    }
    pipeline.schedule = { [family, schedulerProblem, predictor = pipeline.predictor] steps, task, sampling in
      guard var choice else { throw schedulerProblem ?? .missingClassName }
      choice.configuration.sampling = sampling.before(choice.configuration.sampling)
      try choice.kind.check(choice.configuration.sampling)
      var schedule = try family.schedule(choice, steps: steps, for: task, predictor: predictor)
      schedule.trainingSteps = choice.configuration.trainTimesteps ?? schedule.trainingSteps
      return schedule
    }
  }

  /// A request with what the model recommends for what is left open.
  public func request(_ prompt: Prompt, seed: UInt64 = .random(in: 0...UInt64(UInt32.max))) -> GenerationRequest {
    var request = GenerationRequest(prompt, seed: seed)
    request.usual = pipeline.usual
    return request
  }

  /// The same of a text.
  public func request(_ prompt: String, seed: UInt64 = .random(in: 0...UInt64(UInt32.max))) -> GenerationRequest {
    request(Prompt(prompt), seed: seed)
  }

  /// A model's own scheduler, by the class that the index names and otherwise by the configuration's.
  ///
  /// - Returns: no kind, but a problem, where it cannot be used though others could.
  private static func scheduler(
    of files: ModelFiles
  ) throws -> (SchedulerConfiguration, SchedulerKind?, SchedulerError?) {
    guard let json = try files.configuration(of: "scheduler") else {
      throw ConfigurationError.malformed(component: "scheduler", reason: "there is no scheduler_config.json")
    }
    var configuration = try SchedulerConfiguration(json: json)
    configuration.className = files.className(of: "scheduler") ?? configuration.className
    func problem(of kind: SchedulerKind) -> SchedulerError? {
      // The model's own configuration must make a scheduler, or every later request fails. Some take no fewer or no more steps than these.
      do { _ = try kind.make(configuration: configuration, steps: 4) } catch SchedulerError.unusableSteps {} catch { return error }
      return nil
    }
    let reason: SchedulerError
    do throws(SchedulerError) {
      let kind = try SchedulerKind(of: configuration)
      guard let problem = problem(of: kind) else { return (configuration, kind, nil) }
      reason = problem
    } catch {
      reason = error
    }
    let others = SchedulerKind.allCases.filter { $0.isGeneral && problem(of: $0) == nil }
    guard !others.isEmpty else { throw reason }
    return (configuration, nil, .unusableOwn(className: configuration.className, reason: "\(reason)", others: others.map(\.rawValue)))
  }

  /// What is not used of a model's files, but for what the family leaves out on purpose.
  private static func warnings(_ files: ModelFiles, of family: any ModelFamily, _ reports: [String: LoadReport]) -> [LoadWarning] {
    let known = family.ignoredParts.union(family.parts.map(\.name))
    let components = files.components.filter { !known.contains($0) }.map {
      LoadWarning.unusedComponent(name: $0, className: files.className(of: $0) ?? "")
    }
    let tensors = reports.sorted { $0.key < $1.key }.filter { !$0.value.unused.isEmpty }.map {
      LoadWarning.unusedTensors(component: $0.key, names: $0.value.unused)
    }
    return components + tensors + (files.leftOver.isEmpty ? [] : [.leftOver(names: files.leftOver)])
  }
}

/// The name by which most people look for it.
public typealias StableDiffusion = DiffusionModel

/// What a model recommends in `generation_defaults.json`; nil where it says nothing.
public struct GenerationDefaults: Sendable, Equatable {
  /// Steps of the scheduler.
  public var steps: Int?
  /// How closely to follow the prompt.
  public var guidance: Double?
  /// Pixels, for pictures from nothing.
  public var width: Int?
  /// Pixels, for pictures from nothing.
  public var height: Int?

  /// - Throws: `ConfigurationError` where the file is no JSON of numbers.
  init(json: Data?) throws {
    struct File: Decodable {
      var steps: Int?
      var guidance: Double?
      var width: Int?
      var height: Int?
    }
    guard let json else { return }
    let file = try decodeConfiguration(File.self, component: "generation_defaults", from: json)
    (steps, guidance, width, height) = (file.steps, file.guidance, file.width, file.height)
  }
}
