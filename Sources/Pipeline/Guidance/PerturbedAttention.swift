import LatentDiffusionComponents
import Tensor

/// Away from what a network predicts whose self-attention is perturbed, towards the prompt's prediction (PAG). It needs no negative prompt, and goes with one.
///
/// Source: Ahn et al. 2024 (arXiv:2403.17377), diffusers' `PAGMixin`.
public struct PerturbedAttention: Sendable, Hashable, Codable {
  /// s: 0 is no guidance (`pag_scale`).
  public var scale: Float
  /// What the scale loses for each timestep from 1000 on; below 0 it does not fall (`pag_adaptive_scale`).
  public var adaptiveScale: Float
  /// Regular expressions for the names of layers (`pag_applied_layers`), as `PredictorChange.perturbedAttention` has them.
  public var layers: [String]

  /// - Parameters:
  ///   - scale: s.
  ///   - adaptiveScale: what the scale loses for each timestep from 1000 on.
  ///   - layers: regular expressions for the names of layers.
  public init(scale: Float = 3, adaptiveScale: Float = 0, layers: [String] = ["mid"]) {
    (self.scale, self.adaptiveScale, self.layers) = (scale, adaptiveScale, layers)
  }

  func scale(at timestep: Float) -> Float { adaptiveScale > 0 ? max(0, scale - adaptiveScale * (1000 - timestep)) : scale }
}

/// Perturbed attention beside another guidance.
struct PerturbedAttentionGuidance<Base: Guidance>: Guidance {
  var base: Base
  let settings: PerturbedAttention
  /// How much of the spread of the prompt's prediction is restored from that of both guidances, 0…1.
  let rescale: Float

  private static var perturbed: GuidanceRow { GuidanceRow(.prompt, isPerturbed: true) }

  var rows: [GuidanceRow] { base.rows + [Self.perturbed] }
  func rows(at step: Int, of count: Int) -> [GuidanceRow] { base.rows(at: step, of: count) + [Self.perturbed] }
  func renoisingRow(at step: Int, of count: Int) -> Int? { base.renoisingRow(at: step, of: count) }

  mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    let guided = base.combined(predictions.dropLast(), at: step)
    guard let prompt = base.rows(at: step.index, of: step.count).firstIndex(of: GuidanceRow(.prompt)) else { return guided }
    let change = settings.scale(at: step.timestep) * (predictions[prompt] - predictions[predictions.count - 1])
    return (guided + change).rescaled(to: predictions[prompt], by: rescale)
  }
}

extension Guidance {
  /// The same with perturbed attention beside it.
  func beside(_ settings: PerturbedAttention, rescale: Float) -> any Guidance {
    PerturbedAttentionGuidance(base: self, settings: settings, rescale: rescale)
  }
}
