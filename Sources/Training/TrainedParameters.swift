import LatentDiffusionWeights
import Tensor

/// Parameters that are trained: their names, and float32 values in the shapes and the order of a checkpoint.
///
/// Layers keep their own parameters. While a network trains, it runs in a context whose `Adaptation` puts these in their place.
public struct TrainedParameters: Sendable {
  /// What the layers say of their parameters.
  public let labels: [ParameterLabel]
  /// The values, one tensor for each label.
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

  /// The values as layers compute with them, and what finds their gradients.
  public struct Placed: Sendable {
    /// Puts the values in the place of the layers' own.
    public let adaptation: Adaptation
    private let labels: [ParameterLabel]

    fileprivate init(_ parameters: TrainedParameters, of model: Adaptation.Model, on tape: GradientTape, in context: ExecutionContext)
      throws
    {
      var adaptation = Adaptation(of: model)
      for (label, value) in zip(parameters.labels, parameters.values) {
        if label.isMatrix {
          let matrix = try PackedMatrix(WeightTensor(value), isGated: label.isGated, in: context)
          tape.follow(matrix)
          adaptation.matrices[label.id] = matrix
        } else {
          // A tensor of its own, since a tape knows tensors by their memory.
          let vector = label.isGated ? value.arrangedForGates() : value.copied()
          tape.follow(vector)
          adaptation.vectors[label.id] = vector
        }
      }
      (self.adaptation, labels) = (adaptation, parameters.labels)
    }

    /// The gradient of each parameter, in the shapes and the order of the checkpoint. That of a parameter on which nothing depends is zeros.
    public func gradients(from all: Gradients) -> [Tensor] {
      labels.map { label in
        if let matrix = adaptation.matrices[label.id] { return all[matrix]?.reshaped(label.shape) ?? Tensor(shape: label.shape) }
        guard let vector = adaptation.vectors[label.id], let gradient = all[vector] else { return Tensor(shape: label.shape) }
        return label.isGated ? gradient.orderedFromGates(outputs: label.shape[0]) : gradient.reshaped(label.shape)
      }
    }
  }

  /// Packs the values for a step, and has a tape follow them.
  /// - Throws: `CancellationError`.
  public func placed(in model: Adaptation.Model, on tape: GradientTape, in context: ExecutionContext) throws -> Placed {
    try Placed(self, of: model, on: tape, in: context)
  }
}
