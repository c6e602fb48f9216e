import Foundation
import LatentDiffusionComponents
import Tensor

/// Stochastic Adams' method: a predictor on the SDE, which the next step's prediction corrects.
///
/// τ says how much noise a step has. It is `SamplingSettings.eta`, or else 1 at the timesteps from 200 to 800 and 0 elsewhere, as in diffusers.
///
/// Source: Xue et al., "SA-Solver: stochastic Adams solver for fast sampling of diffusion models", arXiv 2309.05019; diffusers' `SASolverScheduler`.
/// Flow matching is refused.
public struct SASolverScheduler: Scheduler {
  /// `algorithm_type`.
  enum Algorithm: String, CaseIterable, Codable {
    case data = "data_prediction"
    case noise = "noise_prediction"
  }

  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  private let predictsOriginal: Bool
  private let predictorOrder: Int
  private let correctorOrder: Int
  private let lowersOrder: Bool
  private let tau: Float?
  /// The last converted predictions.
  private var history: MultistepHistory
  /// The step before.
  private var last: Start?

  private struct Start: Codable {
    /// What the step started from.
    let sample: Tensor
    /// What it drew.
    let noise: Tensor
  }

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `SASolverScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`, and few enough that no two share a timestep.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .saSolver)
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: nil)
    let algorithm: Algorithm = try configuration.algorithm(default: .data, of: .saSolver)
    predictsOriginal = algorithm == .data
    guard predictsOriginal || clipping == .none else {
      throw .unusableValue(key: "thresholding", found: "true", needed: "false with algorithm_type noise_prediction")
    }
    predictorOrder = try configuration.count(.predictorOrder, configuration.predictorOrder, default: 2, in: 1...4)
    correctorOrder = try configuration.count(.correctorOrder, configuration.correctorOrder, default: 2, in: 1...4)
    lowersOrder = configuration.lowerOrderFinal ?? true
    tau = configuration.sampling.eta == nil ? nil : try configuration.eta(default: 1)
    history = MultistepHistory(capacity: max(predictorOrder, correctorOrder - 1))
    let spacing = try SigmaSpacing(configuration)
    schedule = try NoiseSchedule(
      solver: configuration, steps: steps, table: table, scheduler: .saSolver,
      options: SolverOptions(
        spacing: spacing, final: .sigmaMin, leastLambda: configuration.leastLambda, rounded: spacing == .karras,
        endsWithSpacing: true, needsDistinct: true))
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs + [last?.sample, last?.noise].compactMap(\.self))
    let here = schedule.levels[step]
    let original = clipping(prediction.original(sample, output, alpha: here.alpha, sigma: here.sigma))
    let converted = predictsOriginal ? original : prediction.noise(sample, output, alpha: here.alpha, sigma: here.sigma)

    var corrected = sample
    if step > 0, let last {
      let order = order(correctorOrder, taken: history.outputs.count + 1, left: schedule.timesteps.count - step + 2)
      corrected = move(last, from: step - 1, order: order, at: step, by: [converted] + history.outputs, corrects: true)
    }
    let order = order(predictorOrder, taken: history.outputs.count + 1, left: schedule.timesteps.count - step)
    history.add(converted)
    let start = Start(sample: corrected, noise: noise.normal(like: sample))
    last = start
    return StepResult(
      sample: move(start, from: step, order: order, at: step, by: history.outputs, corrects: false), predictedOriginal: original)
  }

  /// The order of a step: the predictions so far limit it, and the steps that are left.
  private func order(_ most: Int, taken: Int, left: Int) -> Int {
    max(1, min(lowersOrder ? min(most, left) : most, taken))
  }

  /// A step by the polynomial through predictions at `last` and before (equations 14 and 17).
  /// - Parameters:
  ///   - order: how many predictions.
  ///   - last: where the newest of them was made.
  ///   - corrects: whether that is the step's end.
  private func move(_ start: Start, from step: Int, order: Int, at last: Int, by outputs: [Tensor], corrects: Bool) -> Tensor {
    let (here, next) = (schedule.levels[step], schedule.levels[step + 1])
    let timestep = schedule.timesteps[step]
    let tau = tau ?? (200...800 ~= timestep ? 1 : 0)
    let (h, tilt) = (next.lambda - here.lambda, 1 + tau * tau)
    // The last step may lead to the noise level it starts from: nothing is left to do.
    guard h != 0 else { return start.sample }
    let count = max(1, min(order, outputs.count, last + 1))
    let nodes = (0..<count).map { schedule.levels[last - $0].lambda }
    var weights = nodes.indices.map { weight(of: $0, nodes, from: here.lambda, to: next.lambda, tilt: tilt) }
    if predictsOriginal, count == 2 {
      // diffusers' correction of the second order, by which the predictor agrees with DPM-Solver++ 2M's.
      let rest = (h * tilt - 1 + exp(tilt * -h)) / (tilt * tilt)
      let change = corrects ? h / 2 - rest / h : (h * h / 2 - rest) / (here.lambda - nodes[1])
      weights[0] += exp(tilt * next.lambda) * change
      weights[1] -= exp(tilt * next.lambda) * change
    }
    let scale = predictsOriginal ? tilt * next.sigma * exp(-tau * tau * next.lambda) : -tilt * next.alpha
    let parts = zip(weights, outputs).map { (scale * $0) * $1 }
    let gradient = parts.dropFirst().reduce(parts[0], +)
    if predictsOriginal {
      let noise = (next.sigma * (1 - exp(-2 * tau * tau * h)).squareRoot()) * start.noise
      return (exp(-tau * tau * h) * (next.sigma / here.sigma)) * start.sample + gradient + noise
    }
    let noise = (tau * next.sigma * (exp(2 * h) - 1).squareRoot()) * start.noise
    return next.alpha / here.alpha * start.sample + gradient + noise
  }

  /// The integral over a step of exp(k λ) and the polynomial in λ that is 1 at one node and 0 at the others. k is 1 + τ², or −1 for predictions of ε.
  /// Terms nearly cancel, so they are counted from the step's start, in double precision.
  private func weight(of index: Int, _ nodes: [Float], from start: Float, to end: Float, tilt: Float) -> Float {
    let rate = predictsOriginal ? Double(tilt) : -1
    let places = nodes.map { Double($0 - start) }
    // The polynomial's coefficients, from the constant up.
    var polynomial = [1.0]
    for (other, place) in places.enumerated() where other != index {
      let shifted = [0] + polynomial, scaled = polynomial.map { $0 * place } + [0]
      polynomial = zip(shifted, scaled).map { ($0 - $1) / (places[index] - place) }
    }
    // The integral of exp(k u) uⁿ, by parts.
    let h = Double(end - start)
    var (integral, power, sum) = (expm1(rate * h) / rate, 1.0, 0.0)
    for (degree, coefficient) in polynomial.enumerated() {
      if degree > 0 {
        power *= h
        integral = (power * exp(rate * h) - Double(degree) * integral) / rate
      }
      sum += coefficient * integral
    }
    return Float(exp(rate * Double(start)) * sum)
  }
}
