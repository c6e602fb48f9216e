import LatentDiffusionComponents
import Tensor

/// A clip from a video with noise on it, for predictors that draw clips. Source: diffusers' `AnimateDiffVideoToVideoPipeline`.
public struct VideoToVideo: GenerationTask {
  /// `[N, F, H, W, 3]`, 0…1, where N is 1 or divides the number of clips of the request. It is resampled as the picture of `ImageToImage` is.
  public var video: Tensor
  public var strength: Double

  /// - Parameters:
  ///   - video: `[N, F, H, W, 3]`, 0…1.
  ///   - strength: the part of the steps that are run, 0…1.
  public init(_ video: Tensor, strength: Double = 0.8) { (self.video, self.strength) = (video, strength) }

  public var name: String { "video-to-video" }
  public var frames: TaskFrames { .count(video.shape.rank == 5 ? video.shape[1] : 0) }
  public var inputs: [(name: String, tensor: Tensor)] { [("The video", video)] }
  public func source(scale: Int) -> TaskSource { .pixels(video.framesAsPictures.pixelSize()) }

  public func check(latentChannels: Int) throws(GenerationError) {
    guard video.shape.rank == 5, video.shape.columns == 3, video.count > 0 else {
      throw .unexpectedShape(name: "The video", expected: "[N, frames, height, width, 3]", found: video.shape)
    }
    guard video.isFinite else { throw .notFinite(name: "The video") }
  }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    let original = try preparation.sampledLatents(ofVideo: video)
    guard !preparation.isUnderWay else { return LoopStart(latents: original) }
    return LoopStart(latents: preparation.noised(original, with: preparation.noiseDrawnByFrame()))
  }
}
