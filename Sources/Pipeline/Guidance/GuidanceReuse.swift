import Tensor

/// How far guidance goes from the prompt's prediction changes little from step to step: most steps ask for the prompt's prediction alone, and go as far from
/// it as the last step with all predictions did.
///
/// Source: the guidance of Castillo et al. 2023, "Adaptive Guidance" (arXiv:2312.12487), whose changes are reused unchanged here.
struct GuidanceReuse<Base: Guidance>: Guidance {
  var base: Base
  /// Every so many steps all predictions are made.
  let interval: Int
  /// From the prompt's prediction to the guided one, of the last of these steps.
  private var change: Tensor?

  init(base: Base, interval: Int) { (self.base, self.interval) = (base, interval) }

  private static var prompt: GuidanceRow { GuidanceRow(.prompt) }

  var rows: [GuidanceRow] { base.rows }

  func rows(at step: Int, of count: Int) -> [GuidanceRow] {
    let rows = base.rows(at: step, of: count)
    return rows.contains(Self.prompt) && !step.isMultiple(of: interval) ? [Self.prompt] : rows
  }

  mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    let rows = base.rows(at: step.index, of: step.count)
    guard let prompt = rows.firstIndex(of: Self.prompt), rows.count > 1 else { return base.combined(predictions, at: step) }
    if predictions.count < rows.count { return change.map { predictions[0] + $0 } ?? predictions[0] }
    let guided = base.combined(predictions, at: step)
    change = guided - predictions[prompt]
    return guided
  }
}

extension Guidance {
  /// The same with all predictions every so many steps.
  func reused(every interval: Int) -> any Guidance { GuidanceReuse(base: self, interval: interval) }
}
