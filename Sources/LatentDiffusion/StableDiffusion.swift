import Autoencoder
import Components
import Foundation
import Pipeline
import Schedulers
import Tensor
import TextEncoder
import UNet
import Weights

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
  /// The scheduler that the model's configuration asks for.
  public let schedulerKind: SchedulerKind
  /// `scheduler_config.json`, as diffusers' pipelines correct it.
  public let schedulerConfiguration: SchedulerConfiguration
  /// What the model recommends for what a request leaves open.
  public let defaults: GenerationDefaults
  /// For each component the tensors of its files that nothing asked for.
  public let reports: [String: LoadReport]
  private let isConsistencyModel: Bool

  /// Reads a model: a folder in diffusers' layout, or a single `.safetensors` file in the layout of the original code.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`, `WeightErrors`, `TokenizerError`, `SchedulerError`,
  ///   `CLIPTextError`, `ComponentError`, `CancellationError`.
  public static func load(from url: URL, in context: ExecutionContext = ExecutionContext()) throws -> StableDiffusion {
    try StableDiffusion(ModelFiles.open(url), in: context)
  }

  init(_ files: ModelFiles, in context: ExecutionContext) throws {
    tokenizer = try Self.tokenizer(of: files)
    var reports: [String: LoadReport] = [:]
    func load<Component>(_ name: String, _ build: (Data, WeightScope) throws -> Component) throws -> Component {
      guard let json = try files.configuration(of: name) else {
        throw ConfigurationError.malformed(component: name, reason: "there is no config.json")
      }
      let (component, report) = try LoadReport.load(from: files.weights(of: name), in: context) { try build(json, $0) }
      reports[name] = report
      return component
    }
    let text = try load("text_encoder") { try CLIPTextModel(CLIPTextShape(json: $0), weights: $1) }
    let unet = try load("unet") { try UNet2DConditionModel(UNet2DShape(json: $0), weights: $1) }
    let autoencoder = try load("vae") { try AutoencoderKL(AutoencoderKLShape(json: $0), weights: $1) }
    self.reports = reports
    try Self.check(text: text, unet: unet, autoencoder: autoencoder)
    isConsistencyModel = unet.embedsGuidance
    let configuration = try SchedulerConfiguration(json: try files.configuration(of: "scheduler") ?? Data("{}".utf8))
    // Editing and consistency pipelines take the file as it is.
    let isTakenAsItIs = isConsistencyModel || files.className == "StableDiffusionInstructPix2PixPipeline"
    schedulerConfiguration = isTakenAsItIs ? configuration : configuration.forStableDiffusion
    schedulerKind = try SchedulerKind(of: configuration)
    defaults = try GenerationDefaults(json: files.generationDefaults)
    let schedule = Self.schedule(schedulerKind, schedulerConfiguration, isConsistencyModel: isConsistencyModel)
    pipeline = DiffusionPipeline(
      predictor: unet, autoencoder: autoencoder, conditioner: try CLIPTextConditioner(tokenizer: tokenizer, model: text),
      schedule: schedule)
    if let width = defaults.width, let height = defaults.height { pipeline.defaultSize = PixelSize(width: width, height: height) }
    // The model's own configuration must make a scheduler, or every later request fails.
    _ = try schedulerKind.make(configuration: schedulerConfiguration, steps: 1)
  }

  /// Lets another scheduler take the place of the model's own, with the model's noise schedule.
  public mutating func use(_ kind: SchedulerKind) {
    pipeline.schedule = Self.schedule(kind, schedulerConfiguration, isConsistencyModel: isConsistencyModel)
  }

  /// A request with what the model recommends.
  public func request(_ prompt: Prompt, seed: UInt64 = .random(in: 0...UInt64(UInt32.max))) -> GenerationRequest {
    var request = GenerationRequest(prompt, seed: seed)
    request.steps = defaults.steps ?? request.steps
    request.guidance = defaults.guidance ?? request.guidance
    return request
  }

  private static func schedule(
    _ kind: SchedulerKind, _ configuration: SchedulerConfiguration, isConsistencyModel: Bool
  ) -> @Sendable (Int, Double) throws -> Schedule {
    { steps, strength in
      // A consistency model makes all its steps, from a timestep that the strength decides; others leave steps out.
      if kind == .lcm, isConsistencyModel {
        return Schedule(try LCMScheduler(configuration, steps: steps, strength: strength))
      }
      return Schedule(try kind.make(configuration: configuration, steps: steps), steps: steps, strength: strength)
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
