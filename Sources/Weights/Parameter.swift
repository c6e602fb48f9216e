import Foundation
import Tensor

/// A parameter of a layer: its values as the layer computes with them, and what is known of them.
///
/// What is to be added to a parameter belongs here, beside its value, where a layer's call finds it: low-rank factors of an adapter, or what a
/// training changes. Nothing is added yet.
public struct Parameter<Value: ParameterValue>: Sendable, Identifiable {
  /// What is known besides the values.
  public let label: ParameterLabel
  /// The packed matrix or kernel, or the vector.
  public let value: Value

  /// The same for all copies of a layer, and as long as one of them lives, no other parameter's. An engine that records operations is handed the value
  /// and finds the parameter by it.
  public var id: ObjectIdentifier { value.id }
}

/// What is known of a parameter besides its values.
public struct ParameterLabel: Sendable, Identifiable {
  /// That of the parameter.
  public let id: ObjectIdentifier
  /// The whole name, as the layer asked for it: `down_blocks.0.resnets.1.conv1.weight`.
  public let name: String
  /// As the checkpoint has it, outermost extent first.
  public let shape: Shape
  /// Where the values come from.
  public let origin: WeightOrigin
  /// Where the values are between uses. Vectors are always in memory.
  public let residency: WeightResidency
}

/// What layers compute with: a matrix or kernel, or a vector.
public protocol ParameterValue: Sendable {
  /// The same for all copies.
  var id: ObjectIdentifier { get }
}

extension PackedMatrix: ParameterValue {}
extension Tensor: ParameterValue {}

/// Where weights come from.
public enum WeightOrigin: Sendable, Hashable {
  /// A file, whether its values are as it has them or converted.
  case file(URL)
  /// Numbers that a program made.
  case memory
  /// Random numbers that follow from a seed.
  case seeded(UInt64)
}
