import Foundation
import LatentDiffusionWeights
import Tensor

extension TrainedParameters {
  /// A network's parameters from nothing, drawn one after the other in the order of the labels.
  ///
  /// Matrices and kernels are uniform within ±1/√f, where f is how many numbers each output is made of, and so are their biases; normalisations begin as 1 and
  /// 0. Source: PyTorch's `Linear` and `Conv2d`. CLIP's text tower has its own: normal numbers, and biases of 0. Source: transformers'
  /// `CLIPPreTrainedModel._init_weights`.
  ///
  /// - Parameters:
  ///   - labels: of all parameters of a network, from a `LoadReport`.
  ///   - generator: draws them.
  public init(_ labels: [ParameterLabel], drawing generator: inout TorchGenerator) {
    let shapes = Dictionary(labels.map { ($0.name, $0.shape) }) { first, _ in first }
    let tower = CLIPDeviations(shapes)
    self.init(
      labels,
      values: labels.map { label in
        let owner = label.name.hasSuffix(".bias") ? String(label.name.dropLast(4)) + "weight" : label.name
        let own = shapes[owner], isNorm = own.map { $0.rank < 2 } ?? true
        if isNorm { return Tensor(repeating: label.name.hasSuffix("weight") ? 1 : 0, shape: label.shape) }
        if let tower {
          guard let deviation = tower.deviation(of: label.name) else { return Tensor(shape: label.shape) }
          return Tensor(generator.normal(label.shape.count).map { $0 * deviation }, shape: label.shape)
        }
        // A table of vectors, such as one for each class. Source: PyTorch's `Embedding`.
        if !label.isMatrix, label.shape.rank == 2 { return Tensor(generator.normal(label.shape.count), shape: label.shape) }
        let fanIn = (own ?? label.shape).dimensions.dropFirst().reduce(1, *), bound = 1 / Float(max(fanIn, 1)).squareRoot()
        return Tensor(generator.uniform(label.shape.count).map { (2 * $0 - 1) * bound }, shape: label.shape)
      })
  }
}

/// How far the parameters of CLIP's text tower are from 0 at first.
private struct CLIPDeviations {
  let features: Float, layers: Float

  /// Nil for other networks.
  init?(_ shapes: [String: Shape]) {
    guard let positions = shapes["embeddings.position_embedding.weight"] else { return nil }
    features = Float(positions[1])
    layers = Float(shapes.keys.count { $0.hasSuffix("self_attn.q_proj.weight") })
  }

  /// Nil for biases, which begin as 0.
  func deviation(of name: String) -> Float? {
    let parts = name.split(separator: ".").suffix(2)
    guard parts.last == "weight" else { return nil }
    let inner = 1 / (features * 2 * max(layers, 1)).squareRoot()
    return switch parts.first {
    case "token_embedding", "position_embedding": 0.02
    case "q_proj", "k_proj", "v_proj", "fc2": inner
    case "fc1": 1 / (2 * features).squareRoot()
    default: 1 / features.squareRoot()
    }
  }
}
