import Foundation
import Autoencoder
import LatentDiffusionComponents
import LatentDiffusionImageEncoder
import LatentDiffusionWeights
import Pipeline
import Tensor
import UNet

/// Stable Video Diffusion, which makes a clip of a picture. Source: diffusers' `StableVideoDiffusionPipeline`.
public struct StableVideoDiffusionFamily: ModelFamily {
  /// Nothing to choose.
  public init() {}

  public var name: String { "Stable Video Diffusion" }

  public var pipelineClasses: Set<String> { ["StableVideoDiffusionPipeline"] }

  public var parts: [ModelPart] {
    [
      ModelPart("unet", .predictor, words: "U-Net", classNames: UNetSpatioTemporalConditionModel.classNames),
      ModelPart("vae", .autoencoder, words: "autoencoder", classNames: AutoencoderKLTemporalDecoder.classNames + AutoencoderKL.classNames),
      ModelPart("image_encoder", .conditioner, words: "image encoder", classNames: CLIPVisionModelWithProjection.classNames),
      ModelPart("feature_extractor", .accessory, words: "image processor", isOptional: true),
      ModelPart("scheduler", .accessory, words: "scheduler"),
    ]
  }

  public var checkpointLayout: (any CheckpointLayout)? { StableVideoDiffusionCheckpoint() }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] {
    guard files.components.contains("feature_extractor") else { return [:] }
    return ["feature_extractor": try CLIPImageProcessor(json: files.configuration(of: "feature_extractor"))]
  }

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let unet: UNetSpatioTemporalConditionModel = try parts.part("unet")
    let model: CLIPVisionModelWithProjection = try parts.part("image_encoder")
    let autoencoder: any LatentAutoencoder = try parts.part("vae")
    let check = ConfigurationCheck("unet"), features = model.configuration.projectedFeatures
    try check.require(
      unet.contextChannels == features, "cross_attention_dim",
      "it is \(unet.contextChannels), but the image encoder gives \(features) features")
    // Frames a second, motion and noise.
    try check.require(
      unet.declaredInputs.contains(PredictorInput("time_ids", shape: [3])), "projection_class_embeddings_input_dim",
      "it leaves no room for three numbers of addition_time_embed_dim features")
    try StableDiffusionFamily.check(unet, autoencoder: autoencoder)
    let processor = try parts.optionalPart("feature_extractor") ?? CLIPImageProcessor()
    return ModelAssembly(
      predictor: unet, autoencoder: autoencoder, conditioner: NoTexts(words: "draws clips of a picture alone"),
      imageConditioners: [VariationConditioner(encoder: try CLIPImageEncoder(model, processor: processor.antialiased))])
  }
}
