import LatentDiffusionWeights
import Tensor

/// A table of vectors that are looked up by their numbers. Source: PyTorch's `Embedding`.
///
/// While nothing takes its place, the table stays as its file has it, and only the rows that are used become float32.
public struct Embedding: Sendable {
  private let weight: Parameter<EmbeddingTable>

  /// How many vectors there are.
  public var count: Int { weight.label.shape[0] }

  /// Takes `weight` `[count, features]`.
  /// - Throws: `WeightErrors`.
  public init(_ count: Int, features: Int, weights: WeightScope) throws {
    weight = try weights.table("weight", shape: [count, features])
  }

  /// - Parameter indices: numbers of vectors, each from 0 up to `count` − 1.
  /// - Returns: `[indices.count, features]`.
  /// - Precondition: there is at least one number, and all lie within the table.
  /// - Throws: what the engine throws.
  public func callAsFunction(_ indices: [Int], in context: ExecutionContext) throws -> Tensor { try weight.rows(at: indices, in: context) }
}
