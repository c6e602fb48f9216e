import Foundation
import Tensor

/// A parameter of a layer: the values that the layer computes with, and a label that describes them.
///
/// What is added to a parameter, or takes its place, comes with the context that a layer is called in: see `Adaptation`.
public struct Parameter<Value: ParameterValue>: Sendable, Identifiable {
  /// The description of the values.
  public let label: ParameterLabel
  /// The packed matrix or kernel, the vector, or the table.
  public let value: Value

  /// All copies of a layer share this identity, and no other parameter has it while one of them exists. An engine that records operations gets the value and
  /// finds the parameter by its identity.
  public var id: ObjectIdentifier { value.id }
}

extension Parameter<PackedMatrix> {
  /// The matrix or kernel in a context: its own, or what takes its place there.
  public func value(in context: ExecutionContext) -> PackedMatrix { context.adaptation?.matrices[id] ?? value }

  /// What is added to the matrix or kernel in a context.
  public func addition(in context: ExecutionContext) -> Adaptation.LowRank? { context.adaptation?.lowRank[id] }
}

extension Parameter<Tensor> {
  /// The vector in a context: its own, or what takes its place there.
  public func value(in context: ExecutionContext) -> Tensor { context.adaptation?.vectors[id] ?? value }
}

extension Parameter<EmbeddingTable> {
  /// Rows of the table by their numbers, or of the tensor `[V, D]` that takes its place in a context.
  ///
  /// - Returns: `[indices.count, D]`.
  /// - Precondition: there is at least one number, and all lie within the table.
  /// - Throws: what the engine throws.
  public func rows(at indices: [Int], in context: ExecutionContext) throws -> Tensor {
    guard let other = context.adaptation?.vectors[id] else { return try value.rows(at: indices, in: context) }
    return try other.rows(at: indices, in: context)
  }
}

/// Describes a parameter without its values.
public struct ParameterLabel: Sendable, Identifiable {
  /// The parameter's identity.
  public let id: ObjectIdentifier
  /// The full name, as the layer asked for it: `down_blocks.0.resnets.1.conv1.weight`.
  public let name: String
  /// The shape in the checkpoint, outermost extent first.
  public let shape: Shape
  /// Where the values come from.
  public let origin: WeightOrigin
  /// Where the values are between uses. Vectors are always in memory, and tables stay as their source has them.
  public let residency: WeightResidency
  /// Whether the second half of a matrix's outputs, or of a bias, are gates of the first.
  public let isGated: Bool
  /// Whether it is a matrix or a kernel, not a vector or a table of vectors.
  public let isMatrix: Bool
}

/// A value that layers compute with: a matrix or kernel, a vector, or a table of vectors.
public protocol ParameterValue: Sendable {
  /// All copies of the value share this identity.
  var id: ObjectIdentifier { get }
}

extension PackedMatrix: ParameterValue {}
extension Tensor: ParameterValue {}
extension EmbeddingTable: ParameterValue {}

/// Where weights come from.
public enum WeightOrigin: Sendable, Hashable {
  /// A file. The values may have been converted.
  case file(URL)
  /// Numbers that a program made.
  case memory
  /// Random numbers that follow from a seed.
  case seeded(UInt64)
}
