import LatentDiffusionWeights
import Tensor

/// Attention of all pixels to one another, after a normalisation and with a residual connection. Source: diffusers' `Attention` as `UNetMidBlock2D`,
/// `AttnDownBlock2D` and `AttnUpBlock2D` make it.
public struct PixelAttention: Sendable {
  private let norm: GroupNorm
  private let attention: Attention
  private let path: String

  /// Takes `group_norm`, `to_q`, `to_k`, `to_v` and `to_out.0`.
  ///
  /// - Parameters:
  ///   - channels: of the pixels.
  ///   - heads: that divide them.
  ///   - groups: of the normalisation.
  ///   - epsilon: of the normalisation.
  /// - Precondition: `channels` is a multiple of `heads` and of `groups`: configurations are checked earlier.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ channels: Int, heads: Int = 1, groups: Int, epsilon: Float = 1e-6, weights: WeightScope) throws {
    norm = try GroupNorm(groups: groups, channels: channels, epsilon: epsilon, weights: weights["group_norm"])
    attention = try Attention(channels, heads: heads, headChannels: channels / heads, bias: true, isObserved: false, weights: weights)
    path = weights.prefix
  }

  /// `[N, H, W, channels]` → the same shape.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let tokens = Shape([x.shape[0], x.shape[1] * x.shape[2], x.shape[3]])
    let result = try attention(norm(x, in: context).reshaped(tokens), adding: x.reshaped(tokens), in: context).reshaped(x.shape)
    context.observer?(path, result)
    return result
  }
}
