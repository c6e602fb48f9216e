import Autoencoder
import LatentDiffusionComponents
import Foundation
import Pipeline
import Schedulers
import Tensor
import TextEncoder
import UNet
import LatentDiffusionWeights

/// A Stable Diffusion model, assembled from its files: the one place where the modules meet.
///
/// ```swift
/// let model = try StableDiffusion.load(from: URL(filePath: "stable-diffusion-v1-5"))
/// let images = try await model.pipeline.images(for: model.request("a red apple"))
/// ```
public struct StableDiffusion: Sendable {
  /// What makes pictures, with the model's own scheduler.
  public var pipeline: DiffusionPipeline
  /// The model's own tokenizer, or CLIP's for a single file.
  public let tokenizer: CLIPTokenizer
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
  /// What the model recommends for what a request leaves open.
  public let defaults: GenerationDefaults
  /// For each component the tensors of its files that nothing asked for.
  public let reports: [String: LoadReport]
  /// What the files hold and is not used, though it may matter: to be told to whoever loads the model.
  public let warnings: [LoadWarning]
  private let isConsistencyModel: Bool

  /// Reads a model: a folder in diffusers' layout, or a single `.safetensors` file in the layout of the original code.
  ///
  /// - Parameters:
  ///   - url: the folder or the file.
  ///   - weights: the form in which the weights are held, whatever the files have: each tensor is converted when its layer is made, so that
  ///     the model is never there twice. Nil holds them as the files have them, which loads fastest, and components that
  ///     are no larger than 32 MiB then as float32, which computes fastest.
  ///   - plan: what is kept in memory and what is not. Its form of the weights is taken; requests that would go beyond its limit are refused.
  ///     Weights that it streams are read as long as the model lives: the file must stay as it is.
  ///   - context: whose threads load, and whose cancellation ends it.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`, `WeightErrors`, `TokenizerError`, `SchedulerError`,
  ///   `CLIPTextError`, `ComponentError`, `CancellationError`.
  public static func load(
    from url: URL, weights: WeightForm? = nil, plan: MemoryPlan? = nil, in context: ExecutionContext = ExecutionContext()
  ) throws -> StableDiffusion {
    try StableDiffusion(ModelFiles.open(url), weights: plan?.weights ?? weights, plan: plan, in: context)
  }

  init(_ files: ModelFiles, weights form: WeightForm? = nil, plan: MemoryPlan? = nil, in context: ExecutionContext) throws {
    try files.checkFamily()
    tokenizer = try Self.tokenizer(of: files)
    var reports: [String: LoadReport] = [:]
    let choice = plan?.choice ?? .usual
    func load<Component>(
      _ name: String, _ residency: WeightResidency, _ build: (Data, WeightScope) throws -> Component
    ) throws -> Component {
      guard let json = try files.configuration(of: name) else {
        throw ConfigurationError.malformed(component: name, reason: "there is no config.json")
      }
      let form = if let plan { plan.form(of: name) } else { try form ?? files.usualForm(of: name) }
      let source = try files.weights(of: name, as: form, in: context)
      let (component, report) = try LoadReport.load(from: source, residency: residency, in: context) { try build(json, $0) }
      reports[name] = report
      return component
    }
    let text = try load("text_encoder", choice.text) { try CLIPTextModel(CLIPTextShape(json: $0), weights: $1) }
    let unet = try load("unet", choice.unet) { try UNet2DConditionModel(UNet2DShape(json: $0), weights: $1) }
    var autoencoder = try load("vae", choice.autoencoder) { try AutoencoderKL(AutoencoderKLShape(json: $0), weights: $1) }
    autoencoder.tiling = choice.tiling
    self.reports = reports
    warnings = Self.warnings(files, reports)
    try Self.check(text: text, unet: unet, autoencoder: autoencoder)
    isConsistencyModel = unet.embedsGuidance
    (ownConfiguration, schedulerKind, schedulerProblem) = try Self.scheduler(of: files)
    schedulerConfiguration = ownConfiguration
    defaults = try GenerationDefaults(json: files.generationDefaults)
    pipeline = DiffusionPipeline(
      predictor: unet, autoencoder: autoencoder, conditioner: try CLIPTextConditioner(tokenizer: tokenizer, model: text),
      schedule: Self.schedule(
        schedulerKind, schedulerProblem, schedulerConfiguration, isExchanged: false, isConsistencyModel: isConsistencyModel))
    pipeline.usual = { [defaults, isConsistencyModel] task in
      let usual = task.usualSettings(ofConsistencyModel: isConsistencyModel)
      return GenerationSettings(steps: defaults.steps ?? usual.steps, guidance: defaults.guidance ?? usual.guidance)
    }
    pipeline.decodesPreviews = MemoryModel.decodesQuickly(
      unet: unet, autoencoder: autoencoder, tokens: tokenizer.maximumLength)
    if let plan { pipeline.admission = { try plan.admit($0) } }
    if let width = defaults.width, let height = defaults.height { pipeline.defaultSize = PixelSize(width: width, height: height) }
  }

  /// Lets another scheduler take the place of the model's own, as `from_config` does: what the model's file says holds for it too,
  /// and about what the file does not say it has its own defaults.
  ///
  /// - Parameters:
  ///   - kind: nil keeps the scheduler that is in use.
  ///   - spacing: how its σ fall; nil for what the model's file says.
  ///   - timesteps: where its timesteps lie; nil for what the model's file says.
  /// - Throws: `SchedulerError` where the scheduler does not have a spacing, or there is none to keep.
  public mutating func use(
    _ kind: SchedulerKind? = nil, spacing: SigmaSpacing? = nil, timesteps: TimestepSpacing? = nil
  ) throws(SchedulerError) {
    guard let used = kind ?? schedulerKind else { throw schedulerProblem ?? .missingClassName }
    schedulerConfiguration = try used.spacing(ownConfiguration, sigmas: spacing, timesteps: timesteps)
    (schedulerKind, isSchedulerExchanged) = (used, isSchedulerExchanged || kind != nil)
    makeSchedule()
  }

  /// What the U-Net predicts, as the model's files say (`prediction_type`). A single file may not say it, or wrongly: whoever knows better sets it.
  public var predictionType: PredictionType {
    get { schedulerConfiguration.predictionType.flatMap(PredictionType.init) ?? .epsilon }
    set {
      schedulerConfiguration.predictionType = newValue.rawValue
      ownConfiguration.predictionType = newValue.rawValue
      makeSchedule()
    }
  }

  private mutating func makeSchedule() {
    pipeline.schedule = Self.schedule(
      schedulerKind, schedulerProblem, schedulerConfiguration, isExchanged: isSchedulerExchanged, isConsistencyModel: isConsistencyModel)
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
    let others = SchedulerKind.allCases.filter { problem(of: $0) == nil }
    guard !others.isEmpty else { throw reason }
    return (configuration, nil, .unusableOwn(className: configuration.className, reason: "\(reason)", others: others.map(\.rawValue)))
  }

  /// What is not used of a model's files. A safety checker and what prepares pictures for it are left out on purpose.
  private static func warnings(_ files: ModelFiles, _ reports: [String: LoadReport]) -> [LoadWarning] {
    let loaded: Set = ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor"]
    let components = files.components.filter { !loaded.contains($0) }.map {
      LoadWarning.unusedComponent(name: $0, className: files.className(of: $0) ?? "")
    }
    let tensors = reports.sorted { $0.key < $1.key }.filter { !$0.value.unused.isEmpty }.map {
      LoadWarning.unusedTensors(component: $0.key, names: $0.value.unused)
    }
    return components + tensors + (files.leftOver.isEmpty ? [] : [.leftOver(names: files.leftOver)])
  }

  private static func schedule(
    _ kind: SchedulerKind?, _ problem: SchedulerError?, _ configuration: SchedulerConfiguration, isExchanged: Bool, isConsistencyModel: Bool
  ) -> @Sendable (Int, GenerationTask) throws -> Schedule {
    { steps, task in
      guard let kind else { throw problem ?? .missingClassName }
      // A consistency model makes all its steps, from a timestep that the strength decides; others leave steps out.
      if kind == .lcm, isConsistencyModel, task.hasConsistencyPipeline {
        return Schedule(try LCMScheduler(configuration, steps: steps, strength: task.strength))
      }
      let configuration = configuration.corrected(for: task, isExchanged: isExchanged)
      return Schedule(try kind.make(configuration: configuration, steps: steps), steps: steps, strength: task.strength)
    }
  }

  static func tokenizer(of files: ModelFiles) throws -> CLIPTokenizer {
    let file = ["tokenizer.json", "vocab.json"].lazy.compactMap { files.file("tokenizer", $0) }.first
    if let file { return try CLIPTokenizer(folder: file.deletingLastPathComponent()) }
    guard files.layout == .singleFile else {
      throw TokenizerError.missingFile(path: files.url.appending(path: "tokenizer/vocab.json").path(percentEncoded: false))
    }
    return try CLIPTokenizer.bundled(configuration: files.configuration(of: "tokenizer"))
  }

  /// Components of different models can each be in order and still not fit one another.
  private static func check(text: CLIPTextModel, unet: UNet2DConditionModel, autoencoder: AutoencoderKL) throws {
    let check = ConfigurationCheck("unet")
    try check.require(
      unet.shape.contextChannels == text.shape.features, "cross_attention_dim",
      "it is \(unet.shape.contextChannels), but the text encoder gives \(text.shape.features) features")
    try check.require(
      unet.outputChannels == autoencoder.latentChannels, "out_channels",
      "it is \(unet.outputChannels), but the autoencoder's latents have \(autoencoder.latentChannels) channels")
  }
}

extension GenerationTask {
  /// Whether diffusers has a pipeline of its own for this task on consistency models.
  fileprivate var hasConsistencyPipeline: Bool {
    switch self {
    case .textToImage, .imageToImage: true
    case .inpaint, .edit: false
    }
  }
}

extension SchedulerConfiguration {
  /// As diffusers' pipelines correct it, each in its way: files of the first releases had keys wrong.
  ///
  /// - Parameter isExchanged: whether a scheduler takes the place of the one that the file is for. It keeps its own defaults.
  fileprivate func corrected(for task: GenerationTask, isExchanged: Bool) -> SchedulerConfiguration {
    var result = self
    func correct<Value>(_ key: WritableKeyPath<SchedulerConfiguration, Value?>, to value: Value) {
      if !isExchanged || self[keyPath: key] != nil { result[keyPath: key] = value }
    }
    switch task {
    case .textToImage, .imageToImage:
      correct(\.stepsOffset, to: 1)
      correct(\.clipSample, to: false)
    case .inpaint:
      correct(\.stepsOffset, to: 1)
      correct(\.skipPRKSteps, to: true)
    case .edit:
      break
    }
    return result
  }
}

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
