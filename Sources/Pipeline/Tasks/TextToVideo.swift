import LatentDiffusionComponents
import Tensor

/// A clip from noise alone, for predictors that draw clips. Source: diffusers' `AnimateDiffPipeline`, `AnimateDiffSDXLPipeline`.
public struct TextToVideo: GenerationTask {
  /// Of the clip; nil: as many as are usual for the predictor.
  public var frameCount: Int?

  /// - Parameter frames: of the clip; nil: as many as are usual for the predictor.
  public init(frames: Int? = nil) { frameCount = frames }

  public var name: String { "text-to-video" }
  public var frames: TaskFrames { frameCount.map(TaskFrames.count) ?? .usual }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    LoopStart(latents: preparation.drawnNoise() * preparation.scheduler.initialNoiseScale)
  }
}
