import LatentDiffusionWeights
import Tensor

/// Low-rank changes of a model's matrices and kernels in training: W + alpha / r · B · A. The model's own weights stay as they are, in any number format.
///
/// Source: Hu et al. 2021 (LoRA, arXiv:2106.09685), PEFT's `LoraLayer`.
public struct TrainedLowRank: Trainable {
  /// The matrices and kernels that are changed.
  public let labels: [ParameterLabel]
  /// r.
  public let rank: Int
  /// How much the change counts is alpha / r.
  public let alpha: Float
  /// A, then B, of each matrix: `[r, I]` and `[O, r]`, for a kernel `[r, C, kh, kw]` and `[O, r, 1, 1]`.
  public var values: [Tensor]

  /// A as diffusers' scripts begin (`init_lora_weights="gaussian"`), normal with the deviation 1 / r, and B zeros, so that nothing changes at first.
  ///
  /// - Parameters:
  ///   - labels: of matrices and kernels. Vectors are left out.
  ///   - rank: r, from 1 up.
  ///   - alpha: nil: r.
  ///   - generator: draws A, one matrix after the other.
  /// - Precondition: the rank is positive.
  public init(_ labels: [ParameterLabel], rank: Int, alpha: Float? = nil, with generator: inout TorchGenerator) {
    precondition(rank > 0, "A change of rank \(rank) changes nothing.")
    (self.labels, self.rank, self.alpha) = (labels.filter(\.isMatrix), rank, alpha ?? Float(rank))
    values = []
    for label in self.labels {
      let (down, up) = Self.shapes(label.shape, rank: rank)
      values.append(Tensor(generator.normal(down.count).map { $0 / Float(rank) }, shape: down))
      values.append(Tensor(shape: up))
    }
  }

  private static func shapes(_ shape: Shape, rank: Int) -> (down: Shape, up: Shape) {
    let ones = Array(repeating: 1, count: shape.rank - 2)
    return (Shape([rank] + shape.dimensions.dropFirst()), Shape([shape[0], rank] + ones))
  }

  /// PEFT's: the matrix's, with `.lora_A.weight` or `.lora_B.weight` in place of `.weight`.
  public var names: [String] { layers.flatMap { ["\($0).lora_A.weight", "\($0).lora_B.weight"] } }

  /// The layers that the matrices belong to.
  var layers: [String] { labels.map { $0.name.hasSuffix(".weight") ? String($0.name.dropLast(7)) : $0.name } }

  public func placed(in model: Adaptation.Model, on tape: GradientTape?, in context: ExecutionContext) throws -> PlacedParameters {
    var adaptation = Adaptation(of: model)
    let scale = alpha / Float(rank)
    for (index, label) in labels.enumerated() {
      let (down, up) = (values[2 * index], values[2 * index + 1])
      let change = try Adaptation.LowRank(
        down: down, up: (up * scale).reshaped([label.shape[0], rank]), isGated: label.isGated, in: context)
      tape?.follow(change.down)
      tape?.follow(change.up)
      adaptation.lowRank[label.id] = change
    }
    return PlacedParameters(adaptation) { [labels, values, adaptation] all in
      labels.enumerated().flatMap { index, label -> [Tensor] in
        let shapes = [values[2 * index].shape, values[2 * index + 1].shape]
        guard let change = adaptation.lowRank[label.id], let down = all[change.down], let up = all[change.up] else {
          return shapes.map { Tensor(shape: $0) }
        }
        let ordered = label.isGated ? up.orderedFromGates(outputs: label.shape[0]) : up
        return [down.reshaped(shapes[0]), (ordered * scale).reshaped(shapes[1])]
      }
    }
  }
}
