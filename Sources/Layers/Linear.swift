import Tensor
import LatentDiffusionWeights

/// y = x · Wᵀ + b. Source: PyTorch's `Linear`.
public struct Linear: Sendable {
  private let weight: Parameter<PackedMatrix>
  private let bias: Parameter<Tensor>?

  /// Whether the weights have 8 bits.
  var isQuantized: Bool { weight.value.isQuantized }

  /// Takes `weight` `[outFeatures, inFeatures]` and `bias` `[outFeatures]`.
  ///
  /// - Parameter isGated: whether the second half of the features are gates. The layer then returns the first half times the GELU of the second, in one pass.
  ///   Source: Shazeer 2020, diffusers' `GEGLU`.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ inFeatures: Int, _ outFeatures: Int, bias: Bool = true, isGated: Bool = false, weights: WeightScope) throws {
    weight = try weights.matrix("weight", shape: [outFeatures, inFeatures], isGated: isGated)
    self.bias = bias ? try weights.vector("bias", shape: [outFeatures], besides: weight.value) : nil
  }

  /// activation(x · Wᵀ + b + residual). A gated layer has its own activation and no residual.
  ///
  /// - Parameters:
  ///   - x: `[…, inFeatures]`.
  ///   - shift: `[rows / n, outFeatures]`, one for each n rows, in the place of a bias that the layer does not have.
  ///   - residual: `[…, outFeatures]`.
  /// - Returns: `[…, outFeatures]`, or half as many features if the layer is gated.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ x: Tensor, shiftedBy shift: Tensor? = nil, adding residual: Tensor? = nil, activation: Activation = .none,
    in context: ExecutionContext
  ) throws -> Tensor {
    precondition(shift == nil || bias == nil, "A layer with a bias takes no shift.")
    let (matrix, bias) = (weight.value(in: context), bias?.value(in: context) ?? shift)
    guard let addition = weight.addition(in: context) else {
      return try x.multiplied(by: matrix, bias: bias, adding: residual, activation: activation, in: context)
    }
    let change = try addition.change(of: x, adding: residual, in: context)
    return try x.multiplied(by: matrix, bias: bias, adding: change, activation: activation, in: context)
  }
}
