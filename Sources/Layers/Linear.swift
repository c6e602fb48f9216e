import Tensor
import Weights

/// y = x · Wᵀ + b. Source: PyTorch's `Linear`.
public struct Linear: Sendable {
  private let weight: PackedMatrix
  private let bias: Tensor?

  /// Takes `weight` `[outFeatures, inFeatures]` and `bias` `[outFeatures]`.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ inFeatures: Int, _ outFeatures: Int, bias: Bool = true, weights: WeightScope) throws {
    weight = try PackedMatrix(weights.tensor("weight", shape: [outFeatures, inFeatures]), in: weights.context)
    self.bias = bias ? try weights.tensor("bias", shape: [outFeatures]).decoded() : nil
  }

  /// activation(x · Wᵀ + b + residual).
  ///
  /// - Parameters:
  ///   - x: `[…, inFeatures]`.
  ///   - residual: `[…, outFeatures]`.
  /// - Returns: `[…, outFeatures]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ x: Tensor, adding residual: Tensor? = nil, activation: Activation = .none, in context: ExecutionContext
  ) throws -> Tensor {
    try x.multiplied(by: weight, bias: bias, adding: residual, activation: activation, in: context)
  }
}
