import Tensor

/// Steps that ask the predictor nothing: their prediction follows from those of the steps before, by a polynomial of the timestep. It works with any predictor,
/// and beside any guidance.
///
/// Source: the idea of Liu et al. 2025, "TaylorSeer" (arXiv:2503.06923), which forecasts features, for the guided prediction itself.
public struct PredictionForecast: Sendable, Hashable, Codable {
  /// Every so many steps the predictor is asked; 1: in all.
  public var interval: Int
  /// The degree of the polynomial: 0 repeats the last prediction.
  public var order: Int
  /// Steps at the start that ask it, too: what the picture will be is decided there.
  public var warmUp: Int

  /// - Parameters:
  ///   - interval: every so many steps the predictor is asked.
  ///   - order: the degree of the polynomial, at least 0.
  ///   - warmUp: steps at the start that ask it, too.
  public init(interval: Int = 2, order: Int = 1, warmUp: Int = 3) {
    (self.interval, self.order, self.warmUp) = (interval, order, warmUp)
  }

  /// The last step asks, too: nothing would mend what it makes.
  func asks(at step: Int, of count: Int) -> Bool {
    step < max(1, warmUp) || (step - max(1, warmUp) + 1).isMultiple(of: max(1, interval)) || step == count - 1
  }
}

struct ForecastGuidance<Base: Guidance>: Guidance {
  var base: Base
  let forecast: PredictionForecast
  private var known: [Known] = []

  private struct Known: Codable {
    let timestep: Float
    let prediction: Tensor
  }

  init(base: Base, forecast: PredictionForecast) { (self.base, self.forecast) = (base, forecast) }

  var rows: [GuidanceRow] { base.rows }

  func rows(at step: Int, of count: Int) -> [GuidanceRow] { forecast.asks(at: step, of: count) ? base.rows(at: step, of: count) : [] }

  mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    guard predictions.isEmpty else {
      let prediction = base.combined(predictions, at: step)
      // Two predictions at one timestep say nothing of what comes.
      known.removeAll { $0.timestep == step.timestep }
      known = known.suffix(max(0, forecast.order)) + [Known(timestep: step.timestep, prediction: prediction)]
      return prediction
    }
    return extrapolated(to: step.timestep, like: step.latents)
  }

  /// Lagrange's polynomial through what is known. What a damaged place brings along does not count.
  private func extrapolated(to timestep: Float, like latents: Tensor) -> Tensor {
    let known = known.filter { $0.prediction.shape == latents.shape }
    let times = known.map { Double($0.timestep) }
    let terms = known.indices.map { index in
      let weight = times.indices.filter { $0 != index }.reduce(1) { $0 * (Double(timestep) - times[$1]) / (times[index] - times[$1]) }
      return Float(weight) * known[index].prediction
    }
    return terms.dropFirst().reduce(terms.first ?? Tensor(shape: latents.shape), +)
  }
}

extension Guidance {
  /// The same, of which some steps are forecast.
  func forecast(by forecast: PredictionForecast) -> any Guidance { ForecastGuidance(base: self, forecast: forecast) }
}
