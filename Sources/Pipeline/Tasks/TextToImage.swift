import LatentDiffusionComponents
import Tensor

/// From noise alone. Source: diffusers' `StableDiffusionPipeline`, `LatentConsistencyModelPipeline`.
public struct TextToImage: GenerationTask {
  /// Nothing to choose.
  public init() {}

  public var name: String { "text-to-image" }

  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings {
    ofConsistencyModel ? GenerationSettings(steps: 4, guidance: 8.5) : GenerationSettings(steps: 50, guidance: 7.5)
  }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    LoopStart(latents: preparation.drawnNoise() * preparation.scheduler.initialNoiseScale)
  }
}
