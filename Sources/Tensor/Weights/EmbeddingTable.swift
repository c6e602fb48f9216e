/// A table of vectors that are looked up, as a checkpoint has it, usually mapped: a row is decoded each time that it is used.
public struct EmbeddingTable: Sendable {
  private final class Identity: Sendable {}

  /// `[V, D]`.
  public let weights: WeightTensor
  private let identity = Identity()

  /// All copies of a table share this identity. No other table has it while one of them exists.
  public var id: ObjectIdentifier { ObjectIdentifier(identity) }

  /// - Precondition: the weights are `[V, D]`.
  public init(_ weights: WeightTensor) {
    precondition(weights.shape.rank == 2, "\(weights.shape) is no table.")
    self.weights = weights
  }

  /// The rows of these numbers, each as often as it is named: `[indices.count, D]`.
  /// - Precondition: there is at least one number, and all lie within the table.
  /// - Throws: what the engine throws.
  public func rows(at indices: [Int], in context: ExecutionContext) throws -> Tensor {
    try .concatenated(indices.map { weights.rows($0..<$0 + 1).decoded() }, axis: 0, in: context)
  }
}
