import Tensor
import LatentDiffusionWeights

/// Group normalisation with parameters from a checkpoint. Source: PyTorch's `GroupNorm`.
public struct GroupNorm: Sendable {
  private let groups: Int
  private let epsilon: Float
  private let weight: Parameter<Tensor>
  private let bias: Parameter<Tensor>
  private let path: String

  /// The operation with the parameters in place.
  func normalization(in context: ExecutionContext) -> GroupNormalization {
    GroupNormalization(groups: groups, epsilon: epsilon, weight: weight.value(in: context), bias: bias.value(in: context))
  }

  /// Takes `weight` and `bias`, `[channels]`.
  /// - Precondition: `channels` is a multiple of `groups`: configurations are checked earlier.
  /// - Throws: `WeightErrors`.
  public init(groups: Int, channels: Int, epsilon: Float, weights: WeightScope) throws {
    (self.groups, self.epsilon) = (groups, epsilon)
    weight = try weights.vector("weight", shape: [channels])
    bias = try weights.vector("bias", shape: [channels])
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
    let normalization = normalization(in: context)
    // The reference's module has no activation.
    if let observer = context.observer { observer(path, try normalization(copy inputs, in: context)) }
    return try normalization(consume inputs, activation: activation, in: context)
  }
}

/// Group normalisation whose scales and shifts follow from an embedding of each picture. Source: diffusers' `AdaGroupNorm`.
public struct AdaGroupNorm: Sendable {
  private let groups: Int
  private let channels: Int
  private let epsilon: Float
  private let linear: Linear
  private let path: String

  /// Takes `linear`, which gives scales and shifts.
  /// - Parameter embedding: the length of the embedding.
  /// - Precondition: `channels` is a multiple of `groups`: configurations are checked earlier.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ embedding: Int, groups: Int, channels: Int, epsilon: Float = 1e-5, weights: WeightScope) throws {
    (self.groups, self.channels, self.epsilon) = (groups, channels, epsilon)
    linear = try Linear(embedding, 2 * channels, weights: weights["linear"])
    path = weights.prefix
  }

  /// Inputs `[N, …, Cᵢ]`, joined along channels, and their embedding `[N, E]` → `[N, …, channels]`. If the caller passes the last reference to a single
  /// input, its memory is reused.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ inputs: consuming [Tensor], embedding: Tensor, in context: ExecutionContext) throws -> Tensor {
    let both = try linear(embedding, in: context)
    let normalization = GroupNormalization(
      groups: groups, epsilon: epsilon, weight: try both.channels(0..<channels, in: context).scaled(by: 1, plus: 1, in: context),
      bias: try both.channels(channels..<2 * channels, in: context))
    let result = try normalization(consume inputs, in: context)
    context.observer?(path, result)
    return result
  }
}

/// Layer normalisation with parameters from a checkpoint. Source: PyTorch's `LayerNorm`.
public struct LayerNorm: Sendable {
  private let weight: Parameter<Tensor>
  private let bias: Parameter<Tensor>
  private let epsilon: Float

  /// Takes `weight` and `bias`, `[features]`.
  /// - Throws: `WeightErrors`.
  public init(_ features: Int, epsilon: Float = 1e-5, weights: WeightScope) throws {
    weight = try weights.vector("weight", shape: [features])
    bias = try weights.vector("bias", shape: [features])
    self.epsilon = epsilon
  }

  /// `[…, features]` → the same shape.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    try x.layerNormalized(weight: weight.value(in: context), bias: bias.value(in: context), epsilon: epsilon, in: context)
  }
}
