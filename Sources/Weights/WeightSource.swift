import Tensor

/// What parameters are taken from: a file, a checkpoint with other names, seeded random numbers in a test.
public protocol WeightSource: Sendable {
  /// All tensors there are.
  var names: Set<String> { get }
  /// - Throws: `WeightError` where there is no such tensor, or not of this shape.
  func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor
  /// Where the tensor of this name comes from; without an implementation, from memory.
  func origin(of name: String) -> WeightOrigin
}

extension WeightSource {
  public func origin(of name: String) -> WeightOrigin { .memory }
}
