import Tensor

/// Limits the norm of all gradients together: where √Σ‖g‖² is larger than the limit, every gradient is multiplied by limit / (norm + 1e-6).
///
/// Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", arXiv 1211.5063; PyTorch's `clip_grad_norm_`.
public struct GradientClipping: Sendable, Equatable {
  /// The largest norm.
  public let norm: Double

  /// - Parameter norm: the largest norm, above 0.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(norm: Double = 1) throws(TrainingError) {
    try TrainingError.check("the largest norm of the gradients", norm, "above 0") { $0 > 0 }
    self.norm = norm
  }

  /// Scales the gradients in place.
  /// - Returns: the norm before.
  /// - Throws: `TrainingError.gradientNotFinite`; the gradients are unchanged then.
  @discardableResult
  public func callAsFunction(_ gradients: inout [Tensor], in context: ExecutionContext) throws(TrainingError) -> Double {
    let found = Tensor.sumOfSquares(gradients, in: context).squareRoot()
    guard found.isFinite else {
      throw .gradientNotFinite(parameter: gradients.firstIndex { !Tensor.sumOfSquares([$0], in: context).isFinite } ?? 0)
    }
    let factor = Float(norm / (found + 1e-6))
    guard factor < 1 else { return found }
    Tensor.update(&gradients, in: context) { run in
      let gradient = run.target(0)
      for i in 0..<run.count { gradient[i] *= factor }
    }
    return found
  }
}

extension Tensor {
  /// Σx² over all elements of all tensors, in double precision.
  static func sumOfSquares(_ tensors: [Tensor], in context: ExecutionContext) -> Double {
    sum(over: [tensors], in: context) { run in
      let x = run.source(0)
      return (0..<run.count).reduce(0.0) { $0 + Double(x[$1]) * Double(x[$1]) }
    }
  }
}
