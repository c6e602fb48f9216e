import Foundation
import LatentDiffusionWeights
import Tensor

/// Mixes what pictures say with what the frames beside them say, by a factor that was learnt. Source: diffusers' `AlphaBlender` with `merge_strategy`
/// `learned`, and with `learned_with_images` for clips, where it is the same.
public struct AlphaBlender: Sendable {
  private let factor: Parameter<Tensor>
  private let isSwitched: Bool

  /// Takes `mix_factor` `[1]`.
  /// - Parameter isSwitched: whether the factor belongs to the frames instead of the picture (`switch_spatial_to_temporal_mix`).
  /// - Throws: `WeightErrors`.
  public init(isSwitched: Bool = false, weights: WeightScope) throws {
    factor = try weights.vector("mix_factor", shape: [1])
    self.isSwitched = isSwitched
  }

  /// α · spatial + (1 - α) · temporal, α being the factor's sigmoid: two tensors of the same shape → one.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ spatial: Tensor, _ temporal: Tensor, in context: ExecutionContext) throws -> Tensor {
    let sigmoid = 1 / (1 + exp(-factor.value(in: context).elements[0])), alpha = isSwitched ? 1 - sigmoid : sigmoid
    return try spatial.scaled(by: alpha, in: context).adding(temporal.scaled(by: 1 - alpha, in: context), in: context)
  }
}
