import Tensor

/// Guidance in some of the steps. In the others the predictor is asked for the prompt's prediction alone, which takes half the time.
///
/// Source: Kynkäänniemi et al. 2024 (arXiv:2404.07724); parts of the steps as `start` and `stop` of diffusers' guiders.
struct GuidanceInterval<Base: Guidance>: Guidance {
  var base: Base
  /// Parts of the n steps, 0…1: from step ⌊start · n⌋ up to the one before ⌊stop · n⌋, counted from 0.
  let start: Double
  let stop: Double

  private static var prompt: GuidanceRow { GuidanceRow(.prompt) }

  private func contains(_ step: Int, of count: Int) -> Bool {
    let (step, count) = (Double(step), Double(count))
    return (start * count).rounded(.down) <= step && step < (stop * count).rounded(.down)
  }

  var rows: [GuidanceRow] { base.rows.contains(Self.prompt) ? base.rows : base.rows + [Self.prompt] }

  func rows(at step: Int, of count: Int) -> [GuidanceRow] { contains(step, of: count) ? base.rows(at: step, of: count) : [Self.prompt] }

  func renoisingRow(at step: Int, of count: Int) -> Int? { contains(step, of: count) ? base.renoisingRow(at: step, of: count) : nil }

  mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    contains(step.index, of: step.count) ? base.combined(predictions, at: step) : predictions[0]
  }
}

extension Guidance {
  /// The same in a part of the steps.
  func within(_ interval: ClosedRange<Double>) -> any Guidance {
    GuidanceInterval(base: self, start: interval.lowerBound, stop: interval.upperBound)
  }
}
