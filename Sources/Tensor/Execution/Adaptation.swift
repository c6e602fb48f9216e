/// What takes the place of a model's parameters, or is added to them, while something runs in a context that carries it.
///
/// The parameters are found by their identities and never change, so without an adaptation the old results come back bit by bit.
public struct Adaptation: Sendable {
  /// The identity of the model whose parameters these are. All copies of a model share it.
  public final class Model: Sendable {
    /// An identity like no other.
    public init() {}
  }

  /// A change of low rank to a matrix or kernel: W + B · A. Source: Hu et al. 2021 (LoRA).
  public struct LowRank: Sendable {
    /// A: `[r, I]`, or `[r, C, kh, kw]` for a kernel.
    public let down: PackedMatrix
    /// B: `[O, r]`; for a gated matrix its rows lie as `PackedMatrix.arranged` has them.
    public let up: PackedMatrix

    /// - Parameters:
    ///   - down: A, `[r, I]` or `[r, C, kh, kw]`.
    ///   - up: B, `[O, r]`.
    ///   - isGated: whether the matrix that it is added to is gated.
    /// - Precondition: the ranks are the same.
    /// - Throws: `CancellationError`.
    public init(down: Tensor, up: Tensor, isGated: Bool = false, in context: ExecutionContext) throws {
      precondition(down.shape[0] == up.shape[1], "\(up.shape) · \(down.shape) is no product.")
      self.down = try PackedMatrix(WeightTensor(down), in: context)
      self.up = try PackedMatrix(WeightTensor(isGated ? up.arrangedForGates() : up), in: context)
    }

    /// B · (A · x) + residual of rows x.
    /// - Throws: `CancellationError`.
    public func change(of x: Tensor, adding residual: Tensor? = nil, in context: ExecutionContext) throws -> Tensor {
      try x.multiplied(by: down, in: context).multiplied(by: up, adding: residual, in: context)
    }
  }

  /// The model that it belongs to.
  public let model: Model
  /// What is added to matrices and kernels.
  public var lowRank: [ObjectIdentifier: LowRank] = [:]
  /// What takes the place of matrices and kernels.
  public var matrices: [ObjectIdentifier: PackedMatrix] = [:]
  /// What takes the place of vectors, and of tables of them.
  public var vectors: [ObjectIdentifier: Tensor] = [:]

  /// An adaptation that changes nothing yet.
  public init(of model: Model) { self.model = model }
}

extension Tensor {
  /// `[O, …]` with rows in the order of a gated matrix's columns; columns without an output have zeros.
  package func arrangedForGates() -> Tensor {
    let (outputs, width, elements) = (shape[0], count / max(shape[0], 1), elements)
    let order = PackedMatrix.columns(ofGated: outputs)
    let rows = order.flatMap { row in row.map { Array(elements[$0 * width..<($0 + 1) * width]) } ?? Array(repeating: 0, count: width) }
    return Tensor(rows, shape: Shape([order.count] + shape.dimensions.dropFirst()))
  }

  /// The opposite of `arrangedForGates`: rows `[panels · 32, …]` in the order of a gated matrix's `outputs`.
  package func orderedFromGates(outputs: Int) -> Tensor {
    let width = count / max(shape[0], 1), result = Tensor(uninitialized: Shape([outputs] + shape.dimensions.dropFirst()))
    for (row, output) in PackedMatrix.columns(ofGated: outputs).enumerated() {
      guard let output else { continue }
      result.mutablePointer.advanced(by: output * width).update(from: pointer + row * width, count: width)
    }
    return result
  }
}
