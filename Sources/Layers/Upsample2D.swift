import Tensor
import LatentDiffusionWeights

/// Doubles the sides, which copies each pixel four times, and convolves. Source: diffusers' `Upsample2D`.
public struct Upsample2D: Sendable {
  private let conv: Convolution2D
  private let path: String

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ channels: Int, weights: WeightScope) throws {
    conv = try Convolution2D(channels, channels, kernel: 3, padding: 1, weights: weights["conv"])
    path = weights.prefix
  }

  /// `[N, H, W, C]` → `[N, 2H, 2W, C]`, or `[N, size, C]` if it must match a picture with odd sides. If the caller passes the last reference, its
  /// memory is returned to the system while it is read.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: consuming Tensor, size: (height: Int, width: Int)? = nil, in context: ExecutionContext) throws -> Tensor {
    let size = size ?? (2 * x.shape[1], 2 * x.shape[2])
    let result = try conv(consume x, resizedTo: size, in: context)
    context.observer?(path, result)
    return result
  }
}
