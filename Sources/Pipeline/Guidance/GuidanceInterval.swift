import Tensor

/// Guidance in some of the steps. In the others the predictor is asked for the prompt's prediction alone, which takes half the time.
///
/// Source: Kynkäänniemi et al. 2024 (arXiv:2404.07724); parts of the steps as `start` and `stop` of diffusers' guiders.
struct GuidanceInterval<Base: Guidance>: Guidance {
  var base: Base
  /// Counted from the first one that is run; those of other models lie before and after.
  let steps: Range<Int>

  private static var prompt: GuidanceRow { GuidanceRow(.prompt) }

  var rows: [GuidanceRow] { base.rows.contains(Self.prompt) ? base.rows : base.rows + [Self.prompt] }

  func rows(at step: Int, of count: Int) -> [GuidanceRow] { steps.contains(step) ? base.rows(at: step, of: count) : [Self.prompt] }

  func renoisingRow(at step: Int, of count: Int) -> Int? { steps.contains(step) ? base.renoisingRow(at: step, of: count) : nil }

  mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    steps.contains(step.index) ? base.combined(predictions, at: step) : predictions[0]
  }
}

extension Guidance {
  /// The same in a part of the denoising: of its n steps from step ⌊start · n⌋ up to the one before ⌊stop · n⌋, counted from 0.
  func within(_ interval: ClosedRange<Double>, of schedule: Schedule) -> any Guidance {
    let whole = schedule.denoising, skipped = schedule.firstStep - whole.lowerBound
    func step(_ part: Double) -> Int { Int((part * Double(whole.count)).rounded(.down)) - skipped }
    return GuidanceInterval(base: self, steps: step(interval.lowerBound)..<step(interval.upperBound))
  }
}
