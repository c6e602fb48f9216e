import LatentDiffusionWeights
import Tensor

/// A model's own parameters in training: float32 values in the shapes and the order of a checkpoint.
///
/// Layers keep their own parameters. While a network trains, it runs in a context whose `Adaptation` puts these in their place.
public struct TrainedParameters: Trainable {
  /// What the layers say of their parameters.
  public let labels: [ParameterLabel]
  public var values: [Tensor]

  /// - Parameters:
  ///   - labels: of the parameters to train, from a `LoadReport`.
  ///   - source: where their first values are.
  /// - Throws: `WeightError` if the source lacks one.
  public init(_ labels: [ParameterLabel], from source: any WeightSource) throws(WeightError) {
    var values: [Tensor] = []
    for label in labels { values.append(try source.tensor(label.name, shape: label.shape).decoded()) }
    (self.labels, self.values) = (labels, values)
  }

  /// - Parameters:
  ///   - labels: of the parameters to train, from a `LoadReport`.
  ///   - values: their first values, in the labels' shapes.
  /// - Precondition: there is a value of each label's shape.
  public init(_ labels: [ParameterLabel], values: [Tensor]) {
    precondition(labels.map(\.shape) == values.map(\.shape), "Values of other parameters.")
    (self.labels, self.values) = (labels, values)
  }

  public var names: [String] { labels.map(\.name) }

  /// The values by their names.
  public var tensors: [String: Tensor] { Dictionary(zip(names, values)) { first, _ in first } }

  public func placed(in model: Adaptation.Model, on tape: GradientTape?, in context: ExecutionContext) throws -> PlacedParameters {
    var adaptation = Adaptation(of: model)
    for (label, value) in zip(labels, values) {
      if label.isMatrix {
        let matrix = try PackedMatrix(WeightTensor(value), isGated: label.isGated, in: context)
        tape?.follow(matrix)
        adaptation.matrices[label.id] = matrix
      } else {
        // A tensor of its own, since a tape knows tensors by their memory.
        let vector = label.isGated ? value.arrangedForGates() : value.copied()
        tape?.follow(vector)
        adaptation.vectors[label.id] = vector
      }
    }
    return PlacedParameters(adaptation) { [labels, adaptation] all in labels.map { $0.gradient(from: all, adaptation) } }
  }
}

extension ParameterLabel {
  fileprivate func gradient(from all: Gradients, _ adaptation: Adaptation) -> Tensor {
    if let matrix = adaptation.matrices[id] { return all[matrix]?.reshaped(shape) ?? Tensor(shape: shape) }
    guard let vector = adaptation.vectors[id], let gradient = all[vector] else { return Tensor(shape: shape) }
    return isGated ? gradient.orderedFromGates(outputs: shape[0]) : gradient.reshaped(shape)
  }
}
