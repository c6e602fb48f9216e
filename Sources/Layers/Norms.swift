import Tensor
import LatentDiffusionWeights

/// Group normalisation with parameters from a checkpoint. Source: PyTorch's `GroupNorm`.
public struct GroupNorm: Sendable {
  let normalization: GroupNormalization
  private let path: String

  /// Takes `weight` and `bias`, `[channels]`.
  /// - Precondition: `channels` is a multiple of `groups`: configurations are checked earlier.
  /// - Throws: `WeightErrors`.
  public init(groups: Int, channels: Int, epsilon: Float, weights: WeightScope) throws {
    normalization = GroupNormalization(
      groups: groups, epsilon: epsilon, weight: try weights.tensor("weight", shape: [channels]).decoded(),
      bias: try weights.tensor("bias", shape: [channels]).decoded())
    path = weights.prefix
  }

  /// activation(normalised): `[N, …, channels]` → the same shape. If the caller passes the last reference, its memory is reused.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: consuming Tensor, activation: Activation = .none, in context: ExecutionContext) throws -> Tensor {
    try self([consume x], activation: activation, in: context)
  }

  /// The same for inputs `[N, …, Cᵢ]` joined along channels.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ inputs: consuming [Tensor], activation: Activation = .none, in context: ExecutionContext) throws -> Tensor {
    // The reference's module has no activation.
    if let observer = context.observer { observer(path, try normalization(copy inputs, in: context)) }
    return try normalization(consume inputs, activation: activation, in: context)
  }
}

/// Layer normalisation with parameters from a checkpoint. Source: PyTorch's `LayerNorm`.
public struct LayerNorm: Sendable {
  private let weight: Tensor
  private let bias: Tensor
  private let epsilon: Float

  /// Takes `weight` and `bias`, `[features]`.
  /// - Throws: `WeightErrors`.
  public init(_ features: Int, epsilon: Float = 1e-5, weights: WeightScope) throws {
    weight = try weights.tensor("weight", shape: [features]).decoded()
    bias = try weights.tensor("bias", shape: [features]).decoded()
    self.epsilon = epsilon
  }

  /// `[…, features]` → the same shape.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    try x.layerNormalized(weight: weight, bias: bias, epsilon: epsilon, in: context)
  }
}
