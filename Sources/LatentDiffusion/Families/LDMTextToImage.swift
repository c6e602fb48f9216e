import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import TextEncoder
import UNet

/// The first latent diffusion models that draw what a text says. Source: diffusers' `LDMTextToImagePipeline`.
public struct LDMTextToImageFamily: ModelFamily {
  /// Nothing to choose.
  public init() {}

  public var name: String { "latent diffusion with LDM-BERT" }
  public var pipelineClasses: Set<String> { ["LDMTextToImagePipeline"] }

  public var parts: [ModelPart] {
    [
      ModelPart("unet", .predictor, words: "U-Net", classNames: UNet2DConditionModel.pictureClassNames),
      ModelPart("vqvae", .autoencoder, words: "autoencoder"),
      ModelPart("bert", .conditioner, words: "text encoder", classNames: LDMBertModel.classNames),
      ModelPart("tokenizer", .accessory, words: "tokenizer", classNames: ["BertTokenizer", "BertTokenizerFast"]),
      ModelPart("scheduler", .accessory, words: "scheduler"),
    ]
  }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] {
    // No single file has the vocabulary: another folder does then.
    let file = ["vocab.txt", "tokenizer.json"].lazy.compactMap { files.file("tokenizer", $0) }.first
    return ["tokenizer": try BertTokenizer(folder: file?.deletingLastPathComponent() ?? files.folder(of: "tokenizer"))]
  }

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let unet: UNet2DConditionModel = try parts.part("unet")
    let text: LDMBertModel = try parts.part("bert")
    let autoencoder: any LatentAutoencoder = try parts.part("vqvae")
    try StableDiffusionFamily.check(features: text.features, unet: unet, autoencoder: autoencoder)
    return ModelAssembly(
      predictor: unet, autoencoder: autoencoder,
      conditioner: LDMBertConditioner(tokenizer: parts.areExtents ? nil : try parts.part("tokenizer"), model: text),
      otherBytes: StableDiffusionFamily.bytesPerToken * text.vocabulary)
  }

  public func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    GenerationSettings(steps: 50, guidance: 1)
  }
}
