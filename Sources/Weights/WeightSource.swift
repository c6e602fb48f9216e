import Tensor

/// A source of parameters: a file, a checkpoint with other names, seeded random numbers in a test.
public protocol WeightSource: Sendable {
  /// The names of all tensors.
  var names: Set<String> { get }
  /// - Throws: `WeightError` if there is no such tensor, or if it has another shape.
  func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor
  /// Where the tensor of this name comes from. The default is memory.
  func origin(of name: String) -> WeightOrigin
}

extension WeightSource {
  public func origin(of name: String) -> WeightOrigin { .memory }
}
