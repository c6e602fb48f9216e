import CLatentDiffusionKernels

/// Functions that an operation can apply to its result.
public enum Activation: Sendable {
  /// The result as it is.
  case none
  /// x · σ(x).
  case silu
  /// x · Φ(x), with the error function.
  case gelu
  /// x · σ(1.702 x), CLIP's own.
  case quickGELU
  /// max(x, 0).
  case relu
  /// The hyperbolic tangent.
  case tanh

  var code: Int32 {
    switch self {
    case .none: Int32(CK_ACTIVATION_NONE)
    case .silu: Int32(CK_ACTIVATION_SILU)
    case .gelu: Int32(CK_ACTIVATION_GELU)
    case .quickGELU: Int32(CK_ACTIVATION_QUICK_GELU)
    case .relu: Int32(CK_ACTIVATION_RELU)
    case .tanh: Int32(CK_ACTIVATION_TANH)
    }
  }
}

extension CPUEngine {
  public func activation(_ activation: Activation, of x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let columns = x.shape.columns
    let result = Tensor(uninitialized: x.shape)
    try x.forRuns(in: context) { begin, rows in
      Kernels.active.activate(
        activation.code, rows, columns, x.pointer + begin * columns, columns, result.mutablePointer + begin * columns, columns)
    }
    return result
  }
}

extension Tensor {
  /// The function applied to every element; the shape stays.
  /// - Throws: `CancellationError`.
  public func activated(_ activation: Activation, in context: ExecutionContext) throws -> Tensor {
    try context.engine.activation(activation, of: self, in: context)
  }
}
