import Foundation
import LatentDiffusionComponents
import LatentDiffusionImageEncoder
import LatentDiffusionWeights
import Pipeline
import Schedulers
import Tensor
import TextEncoder
import UNet

/// Models that draw variations of a picture: Stable unCLIP, which takes a prompt, too, and Stable Diffusion's image variations, which take none.
///
/// Source: diffusers' `StableUnCLIPImg2ImgPipeline`, `StableDiffusionImageVariationPipeline`.
public struct ImageVariationFamily: ModelFamily {
  /// Nothing to choose.
  public init() {}

  public var name: String { "Stable Diffusion image variation or Stable unCLIP" }

  public var pipelineClasses: Set<String> { ["StableUnCLIPImg2ImgPipeline", "StableDiffusionImageVariationPipeline"] }

  public var parts: [ModelPart] {
    [
      ModelPart("unet", .predictor, words: "U-Net", classNames: UNet2DConditionModel.pictureClassNames),
      ModelPart("vae", .autoencoder, words: "autoencoder", classNames: ["AutoencoderKL"]),
      ModelPart("image_encoder", .conditioner, words: "image encoder", classNames: CLIPVisionModelWithProjection.classNames),
      ModelPart("feature_extractor", .accessory, words: "image processor", isOptional: true),
      ModelPart("scheduler", .accessory, words: "scheduler"),
      // Of unCLIP.
      ModelPart("text_encoder", .conditioner, words: "text encoder", classNames: CLIPTextModel.classNames, isOptional: true),
      ModelPart("tokenizer", .accessory, words: "tokenizer", classNames: ["CLIPTokenizer", "CLIPTokenizerFast"], isOptional: true),
      ModelPart(
        "image_normalizer", .conditioner, words: "image normalizer", classNames: StableUnCLIPImageNormalizer.classNames, isOptional: true),
      ModelPart("image_noising_scheduler", .accessory, words: "noise of pictures", isOptional: true),
    ]
  }

  public var ignoredParts: Set<String> { ["safety_checker"] }
  public var checkpointLayout: (any CheckpointLayout)? { StableUnCLIPCheckpoint() }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] {
    var all: [String: any Sendable] = [:]
    func json(_ name: String) throws -> Data? { files.components.contains(name) ? try files.configuration(of: name) : nil }
    if let json = try json("feature_extractor") { all["feature_extractor"] = try CLIPImageProcessor(json: json) }
    if let json = try json("image_noising_scheduler") {
      all["image_noising_scheduler"] = try SchedulerConfiguration(json: json).alphasCumprod()
    }
    if files.components.contains("tokenizer") { all["tokenizer"] = try CLIPTokenizer(of: files) }
    return all
  }

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let unet: UNet2DConditionModel = try parts.part("unet")
    let encoder = try CLIPImageEncoder(parts.part("image_encoder"), processor: parts.optionalPart("feature_extractor"))
    guard parts.optionalPart("text_encoder", as: CLIPTextModel.self) != nil else {
      let autoencoder: any LatentAutoencoder = try parts.part("vae")
      let features = encoder.model.configuration.projectedFeatures
      try StableDiffusionFamily.check(features: features, of: "image encoder", unet: unet, autoencoder: autoencoder)
      return ModelAssembly(
        predictor: unet, autoencoder: autoencoder, conditioner: NoTexts(words: "draws variations of a picture alone"),
        imageConditioners: [VariationConditioner(encoder: encoder)])
    }
    var assembly = try StableDiffusionFamily().assembled(parts)
    let levels: [Float] = parts.areExtents ? [1] : try parts.part("image_noising_scheduler")
    let conditioner = try UnCLIPImageConditioner(encoder: encoder, normalizer: parts.part("image_normalizer"), alphasCumprod: levels)
    assembly.imageConditioners = [conditioner]
    let labels = 2 * encoder.model.configuration.projectedFeatures
    guard unet.declaredInputs.contains(PredictorInput("class_labels", shape: [labels])) else {
      throw ConfigurationError.invalid(
        component: "unet", key: "projection_class_embeddings_input_dim", reason: "the image encoder's states and their noise need \(labels)"
      )
    }
    return assembly
  }

  public func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    let isUnCLIP = predictor.declaredInputs.contains { $0.name == "class_labels" }
    return isUnCLIP ? GenerationSettings(steps: 20, guidance: 10) : GenerationSettings(steps: 50, guidance: 7.5)
  }

  public func description(of files: ModelFiles) -> String? {
    files.components.contains("image_normalizer") ? "Stable unCLIP" : "Stable Diffusion image variation"
  }
}
