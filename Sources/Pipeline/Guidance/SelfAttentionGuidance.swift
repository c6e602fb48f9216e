import LatentDiffusionComponents
import Tensor

/// Self-attention guidance (SAG) beside another one: away from what the network predicts of latents that are blurred where its middle looks most.
///
/// With ε of the negative prompt, or of the prompt where there is no negative one: … + s (ε − ε of the degraded latents). Source: Hong et al. 2022
/// (arXiv:2210.00939), equations 16 and 25; diffusers' `StableDiffusionSAGPipeline`.
struct SelfAttentionGuidance<Base: Guidance>: Guidance {
  var base: Base
  /// s: 0 is no guidance (`sag_scale`).
  let scale: Float

  /// The row that is degraded, and the same degraded; nil where there is none.
  private static func pair(among rows: [GuidanceRow]) -> (plain: Int, degraded: GuidanceRow)? {
    let plain = [GuidanceRow(.negativePrompt), GuidanceRow(.prompt)].lazy.compactMap { rows.firstIndex(of: $0) }.first
    return plain.map { ($0, GuidanceRow(rows[$0].text, isDegraded: true)) }
  }

  private static func withDegraded(_ rows: [GuidanceRow]) -> [GuidanceRow] { rows + [pair(among: rows)?.degraded].compactMap(\.self) }

  var rows: [GuidanceRow] { Self.withDegraded(base.rows) }
  func rows(at step: Int, of count: Int) -> [GuidanceRow] { Self.withDegraded(base.rows(at: step, of: count)) }
  func renoisingRow(at step: Int, of count: Int) -> Int? { base.renoisingRow(at: step, of: count) }

  mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    guard let plain = Self.pair(among: base.rows(at: step.index, of: step.count))?.plain else {
      return base.combined(predictions, at: step)
    }
    let change = scale * (predictions[plain] - predictions[predictions.count - 1])
    return base.combined(predictions.dropLast(), at: step) + change
  }
}

extension Guidance {
  /// The same with self-attention guidance beside it.
  func besideSelfAttention(scale: Float) -> any Guidance { SelfAttentionGuidance(base: self, scale: scale) }
}

extension GuidanceRow {
  /// The row whose latents a degraded one sees degraded.
  var undegraded: GuidanceRow { GuidanceRow(text, seesPicture: seesPicture) }
}

/// No noise at all.
private struct Silence: NoiseSource {
  func normal(_ count: Int) -> [Float] { Array(repeating: 0, count: count) }
}

extension DenoisingLoop {
  /// What a degraded row sees: the latents, of whose clean sample x₀ the places are blurred that get more attention than the mean. The noise stays.
  ///
  /// So x = α x₀ + σ ε becomes x + α (blurred x₀ − x₀) there. What the scheduler cuts of x₀ is cut. Source: `sag_masking` of diffusers'
  /// `StableDiffusionSAGPipeline`: 9 × 9 pixels, with a deviation of one.
  /// - Parameter predictions: of all rows of the step; those of rows that are not degraded are known.
  func degraded(_ row: GuidanceRow, in stage: GuidedPasses.Stage, knowing predictions: [Tensor]) throws -> Tensor {
    let (name, count, shape) = ("Self-attention guidance", latents.shape[0], latents.shape)
    guard let place = stage.place(of: row.undegraded), let pass = stage.passes.first(where: { passes.passes[$0].places.contains(place) }),
      let own = passes.passes[pass].places.firstIndex(of: place), let attention = memories[pass].attention, shape.rank == 4,
      attention.shape.rank == 4, attention.shape.columns == 1, attention.shape[0] >= (own + 1) * count, attention.count > 0
    else { throw ComponentError.missingInput(component: name, argument: "the attention in the middle of a network for pictures") }
    // What the scheduler takes the picture for: a step of a copy tells, for which nothing is drawn.
    var (scheduler, noise) = (self.scheduler, Silence() as any NoiseSource)
    let result = try scheduler.advance(latents, prediction: predictions[place], at: step, noise: &noise)
    guard let original = result.predictedOriginal else {
      throw ComponentError.missingInput(component: name, argument: "a scheduler that tells the clean sample of each step")
    }
    let mask = attention.rows(own * count..<(own + 1) * count).resizedNearest(height: shape[1], width: shape[2]).map { $0 > 1 ? 1 : 0 }
    let change =
      Tensor.concatenated(Array(repeating: mask, count: shape[3]), axis: -1) * (original.blurred(size: 9, deviation: 1) - original)
    return latents + scheduler.schedule.levels[step].alpha * change
  }
}
