import Tensor
import LatentDiffusionWeights

/// Halves the sides with a convolution of stride 2. Source: diffusers' `Downsample2D`.
public struct Downsample2D: Sendable {
  private let conv: Convolution2D
  private let path: String

  /// - Parameter padding: zeros on all sides; 0, as in the autoencoder, pads by one on the right and at the bottom only.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ channels: Int, padding: Int, weights: WeightScope) throws {
    let zeros: ConvolutionGeometry.Padding = padding == 0 ? .init(top: 0, left: 0, bottom: 1, right: 1) : .all(padding)
    conv = try Convolution2D(channels, channels, kernel: 3, stride: 2, padding: zeros, weights: weights["conv"])
    path = weights.prefix
  }

  /// `[N, H, W, C]` → `[N, ⌈H/2⌉, ⌈W/2⌉, C]` (⌊⌋ with the autoencoder's padding).
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try conv(x, in: context)
    context.observer?(path, result)
    return result
  }
}
