import LatentDiffusionWeights
import Tensor

/// Four convolutions along the frames of a clip with a residual path. Each sees a pixel in three frames, after a normalisation over all frames.
///
/// Source: Wang et al. 2023, "ModelScope Text-to-Video" (arXiv:2308.06571), diffusers' `TemporalConvLayer`.
public struct TemporalConvLayer: Sendable {
  private let layers: [(norm: GroupNorm, convolution: Convolution2D)]
  private let path: String

  /// Takes `conv1` to `conv4`, lists of a norm and a convolution.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ channels: Int, groups: Int, weights: WeightScope) throws {
    layers = try (1...4).map { index in
      // SiLU has a number in the list, and dropout in all lists but the first.
      let own = weights["conv\(index)"], place = index == 1 ? 2 : 3
      return (
        try GroupNorm(groups: groups, channels: channels, epsilon: 1e-5, weights: own[0]),
        try Convolution2D(channels, channels, frames: 3, weights: own[place])
      )
    }
    path = weights.prefix
  }

  /// - Parameters:
  ///   - x: `[N · F, H, W, channels]`, the frames of a clip in a row.
  ///   - frames: F.
  /// - Returns: the same shape.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, frames: Int, in context: ExecutionContext) throws -> Tensor {
    if context.recomputes { return try context.recomputed { try self(x, frames: frames, in: $0) } }
    let clips = x.reshaped([x.shape[0] / frames, frames, x.shape[1] * x.shape[2], x.shape[3]])
    var hidden = clips
    for (index, layer) in layers.enumerated() {
      let residual = index == layers.count - 1 ? clips : nil
      hidden = try layer.convolution([consume hidden], normalizedBy: layer.norm, adding: residual, in: context).result
    }
    let result = hidden.reshaped(x.shape)
    context.observer?(path, result)
    return result
  }
}
