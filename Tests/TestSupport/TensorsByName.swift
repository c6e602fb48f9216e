import LatentDiffusionWeights
import Tensor

/// Weights that a test made.
public struct TensorsByName: WeightSource {
  private let tensors: [String: WeightTensor]

  /// Weights of these names.
  public init(_ tensors: [String: WeightTensor]) { self.tensors = tensors }

  public var names: Set<String> { Set(tensors.keys) }

  public func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor {
    guard let tensor = tensors[name], tensor.shape == shape else { throw .missing(name: name, similar: nil) }
    return tensor
  }
}
