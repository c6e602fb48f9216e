import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import TextEncoder
import UNet

/// The first latent diffusion models, which draw without a text: anything, or one of their classes, whose number or name is the prompt.
///
/// Source: diffusers' `LDMPipeline`, and its `UNet2DModel` with classes; the original code's models of ImageNet's classes, whose U-Net attends to a
/// `ClassEmbedder`.
public struct LDMFamily: ModelFamily {
  /// Nothing to choose.
  public init() {}

  public var name: String { "latent diffusion without text" }
  public var pipelineClasses: Set<String> { ["LDMPipeline"] }

  public var parts: [ModelPart] {
    [
      ModelPart("unet", .predictor, words: "U-Net", classNames: UNet2DModel.classNames + UNet2DConditionModel.pictureClassNames),
      ModelPart("vqvae", .autoencoder, words: "autoencoder"),
      ModelPart("class_embedder", .conditioner, words: "class embedder", classNames: ClassEmbedder.classNames, isOptional: true),
      ModelPart("scheduler", .accessory, words: "scheduler"),
    ]
  }

  private static let namesKey = "id2label"
  /// Those of models that read texts, too.
  public var checkpointLayout: (any CheckpointLayout)? { LDMCheckpoint() }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] { [Self.namesKey: files.names(Self.namesKey) ?? [:]] }

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let autoencoder: any LatentAutoencoder = try parts.part("vqvae")
    let names: [String: String] = parts.optionalPart(Self.namesKey) ?? [:]
    // A plan has no classes to ask for, and counts what they are to the network itself.
    func classes(_ count: Int) -> ClassConditioner? { parts.areExtents ? nil : ClassConditioner(count: count, names: names) }
    if let embedder: ClassEmbedder = parts.optionalPart("class_embedder") {
      let unet: UNet2DConditionModel = try parts.part("unet")
      try StableDiffusionFamily.check(features: embedder.features, of: "class embedder", unet: unet, autoencoder: autoencoder)
      return ModelAssembly(
        predictor: unet, autoencoder: autoencoder,
        conditioner: ClassEmbeddingConditioner(classes: classes(embedder.classes), embedder: embedder))
    }
    let unet: UNet2DModel = try parts.part("unet")
    try StableDiffusionFamily.check(unet, autoencoder: autoencoder)
    return ModelAssembly(
      predictor: unet, autoencoder: autoencoder, conditioner: unet.classes.flatMap(classes) ?? NoConditioner())
  }

  public func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    GenerationSettings(steps: 50, guidance: 1)
  }

  public func description(of files: ModelFiles) -> String? {
    let unet = (try? files.configuration(of: "unet")).flatMap { try? UNet2DConfiguration(unconditionalJSON: $0) }
    return unet?.hasClasses == true || files.components.contains("class_embedder") ? "latent diffusion of classes" : name
  }
}
