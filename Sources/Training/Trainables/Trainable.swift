import Tensor

/// What is trained: float32 values, and how a network computes with them while it trains.
public protocol Trainable: Sendable {
  /// The names of the values, as a file has them.
  var names: [String] { get }
  /// One tensor for each name.
  var values: [Tensor] { get set }

  /// Packs the values, and has a tape follow them; nil: for drawing only.
  /// - Throws: `CancellationError`.
  func placed(in model: Adaptation.Model, on tape: GradientTape?, in context: ExecutionContext) throws -> PlacedParameters
}

/// Values as layers compute with them in one step, and what finds their gradients afterwards.
public struct PlacedParameters: Sendable {
  /// Puts the values in the place of the layers' own, or beside them.
  public let adaptation: Adaptation
  private let read: @Sendable (Gradients) -> [Tensor]

  /// - Parameter read: finds the gradient of each value, in its shape.
  public init(_ adaptation: Adaptation, reading read: @escaping @Sendable (Gradients) -> [Tensor]) {
    (self.adaptation, self.read) = (adaptation, read)
  }

  /// The gradient of each value, in its shape. That of a value on which nothing depends is zeros.
  public func gradients(from all: Gradients) -> [Tensor] { read(all) }
}
