import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import UNet

/// ModelScope's text-to-video and what was made of it (Zeroscope): Stable Diffusion 2 with a U-Net whose blocks let the frames of clips see one another.
///
/// Source: Wang et al. 2023 (arXiv:2308.06571), diffusers' `TextToVideoSDPipeline`, `VideoToVideoSDPipeline`.
public struct TextToVideoSDFamily: ModelFamily {
  private let base = StableDiffusionFamily()

  /// Nothing to choose.
  public init() {}

  public var name: String { "text-to-video (ModelScope)" }
  public var pipelineClasses: Set<String> { ["TextToVideoSDPipeline", "VideoToVideoSDPipeline"] }

  /// Motion modules are a part so that they are refused in words: they do not fit such a U-Net.
  public var parts: [ModelPart] {
    [ModelPart("unet", .predictor, words: "U-Net", classNames: UNet2DConditionModel.clipClassNames)]
      + base.parts.filter { $0.name != "unet" }
  }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] { try base.accessories(of: files) }
  public func assembled(_ parts: ModelParts) throws -> ModelAssembly { try base.assembled(parts) }

  public func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    task is VideoToVideo ? GenerationSettings(steps: 50, guidance: 15, strength: 0.6) : GenerationSettings(steps: 50, guidance: 9)
  }
}
