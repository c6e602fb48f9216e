import Autoencoder
import LatentDiffusionComponents
import Foundation
import Pipeline
import Schedulers
import Tensor
import TextEncoder
import UNet
import LatentDiffusionWeights

/// Stable Diffusion 1.x and 2.x with their inpainting, instruction-editing, depth-conditioned and latent-consistency relatives.
///
/// Source: diffusers' `StableDiffusionPipeline` and its variants, `LatentConsistencyModelPipeline`.
public struct StableDiffusionFamily: ModelFamily {
  /// Nothing to choose.
  public init() {}

  public var name: String { "Stable Diffusion 1.x or 2.x" }

  public var pipelineClasses: Set<String> {
    [
      "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionInpaintPipelineLegacy",
      "StableDiffusionInstructPix2PixPipeline", "StableDiffusionDepth2ImgPipeline", "LatentConsistencyModelPipeline",
      "LatentConsistencyModelImg2ImgPipeline",
      // The model beside its ControlNet or adapter, which are loaded by themselves.
      "StableDiffusionControlNetPipeline", "StableDiffusionControlNetImg2ImgPipeline", "StableDiffusionControlNetInpaintPipeline",
      "StableDiffusionAdapterPipeline",
      // With motion modules. What sees pictures of some frames (SparseControl, PIA) is not among them.
      "AnimateDiffPipeline", "AnimateDiffVideoToVideoPipeline", "AnimateDiffControlNetPipeline",
      "AnimateDiffVideoToVideoControlNetPipeline",
    ]
  }

  public var parts: [ModelPart] {
    [
      ModelPart("unet", .predictor, words: "U-Net", classNames: UNet2DConditionModel.pictureClassNames),
      .motionAdapter,
      ModelPart(
        "vae", .autoencoder, words: "autoencoder", classNames: Self.autoencoders),
      ModelPart("text_encoder", .conditioner, words: "text encoder", classNames: CLIPTextModel.classNames),
      ModelPart("tokenizer", .accessory, words: "tokenizer", classNames: ["CLIPTokenizer", "CLIPTokenizerFast"]),
      ModelPart("scheduler", .accessory, words: "scheduler"),
    ]
  }

  private static let autoencoders =
    AutoencoderKL.classNames + AsymmetricAutoencoderKL.classNames + AutoencoderTiny.classNames + VQModel.classNames

  /// What judges pictures, what guesses their depth, which a request brings, and what prepares pictures for both.
  public var ignoredParts: Set<String> { ["safety_checker", "depth_estimator", "feature_extractor"] }
  public var checkpointLayout: (any CheckpointLayout)? { StableDiffusionCheckpoint() }

  public func otherNames(of component: String, parameters: Set<String>) -> [String: String] {
    (component == "unet" ? LDMKeys.originalModules(ofUNet: parameters) : [:]).merging(MotionKeys.originalModules(parameters)) { $1 }
  }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] { ["tokenizer": try CLIPTokenizer(of: files)] }

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let unet = try parts.unet()
    let text: CLIPTextModel = try parts.part("text_encoder")
    let autoencoder: any LatentAutoencoder = try parts.part("vae")
    try Self.check(features: text.configuration.features, unet: unet, autoencoder: autoencoder)
    let conditioner: any TextConditioner =
      parts.areExtents ? LongestTexts(model: text) : try CLIPTextConditioner(tokenizer: parts.part("tokenizer"), model: text)
    return ModelAssembly(
      predictor: unet, autoencoder: autoencoder, conditioner: conditioner,
      otherBytes: Self.bytesPerToken * text.configuration.vocabulary)
  }

  /// What the tokenizer takes for each token that it knows.
  static let bytesPerToken = 400

  /// Components of different models can each be in order and still not fit one another.
  ///
  /// - Parameter features: of the text encoders, or of what takes their place.
  static func check(
    features: Int, of encoder: String = "text encoder", unet: UNet2DConditionModel, autoencoder: any LatentAutoencoder
  ) throws {
    try ConfigurationCheck("unet").require(
      unet.configuration.contextChannels == features, "cross_attention_dim",
      "it is \(unet.configuration.contextChannels), but the \(encoder) gives \(features) features")
    try check(unet, autoencoder: autoencoder)
  }

  static func check(_ unet: any NoisePredictor, autoencoder: any LatentAutoencoder) throws {
    try ConfigurationCheck("unet").require(
      [1, 2].contains { unet.outputChannels == $0 * autoencoder.latentChannels }, "out_channels",
      "it is \(unet.outputChannels), but the autoencoder's latents have \(autoencoder.latentChannels) channels")
  }

  public func schedule(
    _ choice: SchedulerChoice, steps: Int, for task: any GenerationTask, predictor: any NoisePredictor
  ) throws -> Schedule {
    // A consistency model makes all its steps, from a timestep that the strength decides; others leave steps out. diffusers has such a pipeline
    // for two tasks.
    if choice.kind == .lcm, predictor.embedsGuidance, task is TextToImage || task is ImageToImage {
      return Schedule(try LCMScheduler(choice.configuration, steps: steps, strength: task.strength))
    }
    let configuration = choice.configuration.corrected(for: task, isExchanged: choice.isExchanged)
    return Schedule(try choice.kind.make(configuration: configuration, steps: steps), steps: steps, strength: task.strength)
  }

  public func description(of files: ModelFiles) -> String? {
    guard let json = try? files.configuration(of: "unet"), let unet = try? decodeConfiguration(Facts.self, component: "unet", from: json)
    else {
      return nil
    }
    let context = unet.cross_attention_dim?.expanded(to: 1)?.first
    let version = context == 1024 || unet.use_linear_projection == true ? "2.x" : "1.x"
    let task =
      // What it sees beside the latents.
      switch (unet.in_channels ?? 4) &- (unet.out_channels ?? 4) {
      case 5: " inpainting"
      case 4: " instruction editing"
      case 3: " upscaler"
      case 1: " with depth"
      default: unet.time_cond_proj_dim == nil ? "" : " latent consistency"
      }
    let isUsual = [768, 1024].contains(context)
    return "Stable Diffusion \(version)\(task)" + (isUsual ? "" : ", of its own size")
      + (files.hasMotion ? ", with motion (AnimateDiff)" : "")
  }

  /// The few configuration values by which its versions are told apart.
  private struct Facts: Decodable {
    var in_channels: Int?
    var out_channels: Int?
    var cross_attention_dim: PerLevel<Int>?
    var use_linear_projection: Bool?
    var time_cond_proj_dim: Int?
  }
}

/// Texts of all tokens that the tower has places for, whatever the prompts: what a plan counts.
struct LongestTexts: TextConditioner {
  let model: CLIPTextModel
  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let ids = request.prompts.map { _ in Array(repeating: 0, count: model.configuration.positions) }
    let output = try model(ids, in: context)
    return Conditioning(hiddenStates: output.lastHiddenState, pooled: output.textEmbeds ?? output.pooled)
  }
}

extension CLIPTokenizer {
  /// The tokenizer of a model, without the rest of it: the model's own, or CLIP's for a single file.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`, `TokenizerError`.
  public init(of files: ModelFiles, named name: String = "tokenizer") throws {
    if let file = ["tokenizer.json", "vocab.json"].lazy.compactMap({ files.file(name, $0) }).first {
      self = try CLIPTokenizer(folder: file.deletingLastPathComponent())
    } else if files.layout == .singleFile {
      self = try CLIPTokenizer.bundled(configuration: files.components.contains(name) ? files.configuration(of: name) : nil)
    } else {
      throw TokenizerError.missingFile(path: files.url.appending(path: "\(name)/vocab.json").path(percentEncoded: false))
    }
  }
}

extension SchedulerConfiguration {
  /// As diffusers' pipelines correct it, each in its way: files of the first releases had keys wrong.
  ///
  /// - Parameter isExchanged: whether a scheduler takes the place of the one that the file is for. It keeps its own defaults.
  fileprivate func corrected(for task: any GenerationTask, isExchanged: Bool) -> SchedulerConfiguration {
    var result = self
    func correct<Value>(_ key: WritableKeyPath<SchedulerConfiguration, Value?>, to value: Value) {
      if !isExchanged || self[keyPath: key] != nil { result[keyPath: key] = value }
    }
    switch task {
    case is InstructionEditing, is DepthToImage, is TextToVideo, is VideoToVideo:
      break
    case is Inpainting:
      correct(\.stepsOffset, to: 1)
      correct(\.skipPRKSteps, to: true)
    default:
      correct(\.stepsOffset, to: 1)
      correct(\.clipSample, to: false)
    }
    return result
  }
}
