import Tensor

/// Where parameters come from: a safetensors file, a checkpoint with other names, seeded random numbers in a test.
public protocol WeightSource: Sendable {
  /// All tensors there are.
  var names: Set<String> { get }
  /// - Throws: `WeightError` where there is no such tensor, or not of this shape.
  func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor
}
