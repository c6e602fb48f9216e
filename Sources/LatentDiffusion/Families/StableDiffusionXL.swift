import Autoencoder
import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import Tensor
import TextEncoder
import UNet

/// Stable Diffusion XL: base, refiner, and their inpainting and instruction-editing relatives, also distilled ones.
///
/// Source: diffusers' `StableDiffusionXLPipeline` and its variants.
public struct StableDiffusionXLFamily: ModelFamily {
  /// Nothing to choose.
  public init() {}

  public var name: String { "Stable Diffusion XL" }

  public var pipelineClasses: Set<String> {
    [
      "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
      "StableDiffusionXLInstructPix2PixPipeline", "StableDiffusionXLControlNetPipeline", "StableDiffusionXLControlNetImg2ImgPipeline",
      "StableDiffusionXLControlNetInpaintPipeline", "StableDiffusionXLAdapterPipeline", "AnimateDiffSDXLPipeline",
    ]
  }

  public var parts: [ModelPart] {
    let tokenizers = ["CLIPTokenizer", "CLIPTokenizerFast"]
    return [
      ModelPart("unet", .predictor, words: "U-Net", classNames: UNet2DConditionModel.pictureClassNames),
      .motionAdapter,
      ModelPart("vae", .autoencoder, words: "autoencoder", classNames: AutoencoderKL.classNames),
      // The refiner has the second one alone.
      ModelPart("text_encoder", .conditioner, words: "text encoder", classNames: CLIPTextModel.classNames, isOptional: true),
      ModelPart("text_encoder_2", .conditioner, words: "second text encoder", classNames: ["CLIPTextModelWithProjection"]),
      ModelPart("tokenizer", .accessory, words: "tokenizer", classNames: tokenizers, isOptional: true),
      ModelPart("tokenizer_2", .accessory, words: "second tokenizer", classNames: tokenizers),
      ModelPart("scheduler", .accessory, words: "scheduler"),
    ]
  }

  /// What encodes pictures for adapters, and marks pictures.
  public var ignoredParts: Set<String> { ["feature_extractor", "image_encoder", "watermark"] }
  public var checkpointLayout: (any CheckpointLayout)? { StableDiffusionXLCheckpoint() }

  public func otherNames(of component: String, parameters: Set<String>) -> [String: String] {
    (component == "unet" ? LDMKeys.originalModules(ofUNet: parameters, labels: "add_embedding") : [:])
      .merging(MotionKeys.originalModules(parameters)) { $1 }
  }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] {
    var all: [String: any Sendable] = [
      Self.zerosKey: files.flag(Self.zerosKey) ?? true, Self.scalesKey: files.flag(Self.scalesKey) ?? false,
    ]
    for name in ["tokenizer", "tokenizer_2"] where files.components.contains(name) { all[name] = try CLIPTokenizer(of: files, named: name) }
    return all
  }

  private static let zerosKey = "force_zeros_for_empty_prompt"
  private static let scalesKey = "is_cosxl_edit"

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let unet = try parts.unet()
    let autoencoder: any LatentAutoencoder = try parts.part("vae")
    let first: CLIPTextModel? = parts.optionalPart("text_encoder")
    let second: CLIPTextModel = try parts.part("text_encoder_2")
    func tokenizer(_ name: String) throws -> CLIPTokenizer? { parts.areExtents ? nil : try parts.part(name) }
    let towers =
      try (first.map { [try XLTextConditioner.Tower(tokenizer: tokenizer("tokenizer"), model: $0)] } ?? [])
      + [XLTextConditioner.Tower(tokenizer: tokenizer("tokenizer_2"), model: second)]
    let numbers = try Self.numbers(of: unet, towers: towers.map(\.model), autoencoder: autoencoder)
    let conditioner = try XLTextConditioner(
      towers, zerosForAbsent: !parts.areExtents && parts.optionalPart(Self.zerosKey) ?? true, toldAestheticScore: numbers == 5)
    var assembly = ModelAssembly(
      predictor: unet, autoencoder: autoencoder, conditioner: conditioner,
      otherBytes: towers.reduce(0) { $0 + StableDiffusionFamily.bytesPerToken * $1.model.configuration.vocabulary })
    assembly.scalesPictures = parts.optionalPart(Self.scalesKey) ?? false
    return assembly
  }

  /// How many numbers the U-Net is told beside the text: six for sizes, or five with an aesthetic score.
  private static func numbers(of unet: UNet2DConditionModel, towers: [CLIPTextModel], autoencoder: any LatentAutoencoder) throws -> Int {
    try StableDiffusionFamily.check(
      features: towers.reduce(0) { $0 + $1.configuration.features }, unet: unet, autoencoder: autoencoder)
    let pooled = towers.last?.configuration.projectedFeatures ?? 0
    guard let numbers = unet.configuration.numbers(besidePooled: pooled), [5, 6].contains(numbers) else {
      throw ConfigurationError.invalid(
        component: "unet", key: "projection_class_embeddings_input_dim",
        reason: "beside a pooled text of \(pooled) it leaves no room for sizes of 5 or 6 numbers")
    }
    return numbers
  }

  public func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    switch task {
    case is InstructionEditing: GenerationSettings(steps: 100, guidance: 5)
    case is Inpainting: GenerationSettings(steps: 50, guidance: 7.5, strength: 0.9999)
    case is ImageToImage: GenerationSettings(steps: 50, guidance: 5, strength: 0.3)
    default: GenerationSettings(steps: 50, guidance: 5)
    }
  }

  public func description(of files: ModelFiles) -> String? {
    guard let json = try? files.configuration(of: "unet"), let unet = try? UNet2DConfiguration(json: json) else { return nil }
    let task =
      switch unet.inputChannels {
      case 9: " inpainting"
      case 8: " instruction editing"
      default: files.components.contains("text_encoder") ? "" : " refiner"
      }
    return "Stable Diffusion XL" + task + (files.hasMotion ? ", with motion (AnimateDiff)" : "")
  }
}
