import LatentDiffusionWeights
import Tensor

/// Lets the frames of a clip see their neighbours after a resnet that saw each as a picture. With that resnet it is diffusers' `SpatioTemporalResBlock`.
///
/// Source: Blattmann et al. 2023, "Stable Video Diffusion" (arXiv:2311.15127).
public struct TemporalResnetBlock: Sendable {
  private let block: ResnetBlock2D
  private let mixer: AlphaBlender
  private let path: String

  /// Takes `temporal_res_block` and `time_mixer`.
  ///
  /// - Parameters:
  ///   - channels: before and after it.
  ///   - timeChannels: the length of the time embedding; nil in an autoencoder, which has none.
  ///   - isSwitched: whether the mixing factor belongs to the frames instead of the picture.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ channels: Int, timeChannels: Int?, groups: Int, epsilon: Float, isSwitched: Bool = false, weights: WeightScope) throws {
    block = try ResnetBlock2D(
      acrossFrames: channels, timeChannels: timeChannels, groups: groups, epsilon: epsilon, weights: weights["temporal_res_block"])
    mixer = try AlphaBlender(isSwitched: isSwitched, weights: weights["time_mixer"])
    path = weights.prefix
  }

  /// - Parameters:
  ///   - x: `[N · F, H, W, channels]`, the frames of a clip in a row.
  ///   - time: `[N, timeChannels]`, after its activation: all frames of a clip are at the same time.
  ///   - frames: F.
  /// - Returns: the same shape as x.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, time: Tensor? = nil, frames: Int, in context: ExecutionContext) throws -> Tensor {
    let clips = x.reshaped([x.shape[0] / frames, frames, x.shape[1] * x.shape[2], x.shape[3]])
    let result = try mixer(clips, block([clips], time: time, in: context), in: context).reshaped(x.shape)
    context.observer?(path, result)
    return result
  }
}
