import LatentDiffusionComponents
import Foundation
import Tensor

/// A multistep solver of the diffusion ODE (or SDE) in λ: DPM-Solver++ 2M and its relatives of first to third order.
///
/// Source: Lu, Zhou, Bao, Chen, Li and Zhu, "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models",
/// arXiv 2211.01095; diffusers' `DPMSolverMultistepScheduler`. Learned variances and flow matching are refused.
public struct DPMSolverMultistepScheduler: Scheduler {
  /// `algorithm_type`.
  enum Algorithm: String, CaseIterable, Codable {
    /// The ODE, solved for predictions of x₀.
    case plusPlus = "dpmsolver++"
    /// The ODE, solved for predictions of ε.
    case plain = "dpmsolver"
    /// The SDE, solved for predictions of x₀.
    case stochasticPlusPlus = "sde-dpmsolver++"
    /// The SDE, solved for predictions of ε.
    case stochastic = "sde-dpmsolver"
    /// The name of another solver. diffusers takes DPM-Solver++ in its place.
    case deis

    var isStochastic: Bool { self == .stochasticPlusPlus || self == .stochastic }
    var predictsOriginal: Bool { self != .plain && self != .stochastic }
  }

  /// `solver_type`: how the second-order term is integrated.
  enum Solver: String, CaseIterable, Codable {
    case midpoint
    case heun
    /// Names that belong to other solvers. diffusers takes `midpoint` in their place.
    case logrho, bh1, bh2
  }

  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  private let algorithm: Algorithm
  private let solver: Solver
  /// Whether the last step is of first order.
  private let lastIsFirstOrder: Bool
  /// Whether the last step but one is of second order at most.
  private let lastButOneIsSecondOrder: Bool
  /// The last converted predictions, as many as `solver_order`.
  private var history: MultistepHistory

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DPMSolverMultistepScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`, and few enough that no two share a timestep.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.keepsSignal = true
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: "DPM-Solver")
    if let variance = configuration.varianceType, variance.hasPrefix("learned") {
      throw .unusableValue(key: "variance_type", found: "\"\(variance.prefix(80))\"", needed: "absent: learned variances are not read")
    }
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: nil)
    algorithm = try configuration.choice(.algorithmType, configuration.algorithmType, default: .plusPlus)
    solver = try configuration.choice(.solverType, configuration.solverType, default: .midpoint)
    let solverOrder = try configuration.count(.solverOrder, configuration.solverOrder, default: 2, in: 1...3)
    let final = try FinalSigma(configuration)
    guard algorithm.predictsOriginal || final != .zero else {
      throw .unusableValue(key: "final_sigmas_type", found: "zero", needed: "sigma_min with algorithm_type \(algorithm.rawValue)")
    }
    guard algorithm != .stochastic || solverOrder < 3 else {
      throw .unusableValue(key: "solver_order", found: "3", needed: "1 or 2 with algorithm_type sde-dpmsolver")
    }
    history = MultistepHistory(capacity: solverOrder)
    let spacing = try SigmaSpacing(configuration, lu: true)
    let rounded = (spacing == .karras || spacing == .lu) && configuration.betaSchedule != BetaSchedule.squaredCosine.rawValue
    let leastLambda = configuration.lambdaMinClipped ?? -.infinity
    schedule = try NoiseSchedule(
      solver: configuration, steps: steps, table: table, scheduler: "DPM-Solver",
      options: SolverOptions(
        spacing: spacing, final: final, leastLambda: Float(leastLambda), rounded: rounded, endsWithSpacing: false,
        needsDistinct: solverOrder > 1))
    let lowersOrder = configuration.lowerOrderFinal ?? true && schedule.timesteps.count < 15
    lastIsFirstOrder = configuration.eulerAtFinal ?? false || lowersOrder || final == .zero
    lastButOneIsSecondOrder = lowersOrder
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let (here, next) = (schedule.levels[step], schedule.levels[step + 1])
    let original = clipping(prediction.original(sample, output, alpha: here.alpha, sigma: here.sigma))
    history.add(algorithm.predictsOriginal ? original : epsilon(sample, output, original, at: here))

    let drawn = algorithm.isStochastic ? noise.normal(like: sample) : nil
    // The last step may lead to the noise level it starts from: nothing is left to do.
    guard here.lambda != next.lambda else { return StepResult(sample: sample, predictedOriginal: original) }
    let weights = weights(from: here, to: next)
    var result = weights.sample * sample + weights.output * history.outputs[0]
    let differences = differences(at: step, order: order(at: step), from: here, to: next)
    if let first = differences.first { result = result + (differences.count > 1 ? weights.slopeByHeun : weights.slope) * first }
    if differences.count > 1 { result = result + weights.curvature * differences[1] }
    if let drawn { result = result + weights.noise * drawn }
    return StepResult(sample: result, predictedOriginal: original)
  }

  /// ε. Where x₀ was thresholded, ε follows from it.
  private func epsilon(_ sample: Tensor, _ output: Tensor, _ original: Tensor, at level: NoiseLevel) -> Tensor {
    if clipping == .none { return prediction.noise(sample, output, alpha: level.alpha, sigma: level.sigma) }
    return (sample - level.alpha * original) / level.sigma
  }

  /// The order of a step. The predictions so far limit it, and it falls at the end.
  private func order(at step: Int) -> Int {
    let left = schedule.timesteps.count - step
    if left == 1, lastIsFirstOrder { return 1 }
    return min(history.outputs.count, step + 1, left == 2 && lastButOneIsSecondOrder ? 2 : history.capacity)
  }

  /// The divided differences D₁ (and D₂) of the last predictions over λ, in units of the step.
  private func differences(at step: Int, order: Int, from here: NoiseLevel, to next: NoiseLevel) -> [Tensor] {
    guard order > 1 else { return [] }
    let outputs = history.outputs
    let h = next.lambda - here.lambda
    let before = schedule.levels[step - 1]
    let r0 = (here.lambda - before.lambda) / h
    let slope = (1 / r0) * (outputs[0] - outputs[1])
    guard order > 2 else { return [slope] }
    let r1 = (before.lambda - schedule.levels[step - 2].lambda) / h
    let change = slope - (1 / r1) * (outputs[1] - outputs[2])
    return [slope + (r0 / (r0 + r1)) * change, (1 / (r0 + r1)) * change]
  }

  /// What the sample, the prediction, its differences and fresh noise are multiplied by.
  private struct Weights {
    var sample: Float
    var output: Float
    var slope: Float
    /// Of D₁ in a step of third order.
    var slopeByHeun: Float
    var curvature: Float
    var noise: Float = 0
  }

  /// The integrals of the exponential over a step h = λ_t − λ_s (the paper's equations 9 and 10, and its appendix for the others).
  private func weights(from here: NoiseLevel, to next: NoiseLevel) -> Weights {
    let h = next.lambda - here.lambda
    var weights: Weights
    switch algorithm {
    case .plusPlus, .deis:
      let phi = exp(-h) - 1
      weights = Weights(
        sample: next.sigma / here.sigma, output: -(next.alpha * phi), slope: -(0.5 * (next.alpha * phi)),
        slopeByHeun: next.alpha * (phi / h + 1), curvature: -(next.alpha * ((phi + h) / (h * h) - 0.5)))
    case .plain:
      let phi = exp(h) - 1
      weights = Weights(
        sample: next.alpha / here.alpha, output: -(next.sigma * phi), slope: -(0.5 * (next.sigma * phi)),
        slopeByHeun: -(next.sigma * (phi / h - 1)), curvature: -(next.sigma * ((phi - h) / (h * h) - 0.5)))
    case .stochasticPlusPlus:
      let phi = 1 - exp(-2 * h)
      weights = Weights(
        sample: next.sigma / here.sigma * exp(-h), output: next.alpha * phi, slope: 0.5 * (next.alpha * phi),
        slopeByHeun: next.alpha * (phi / (-2 * h) + 1), curvature: next.alpha * ((phi - 2 * h) / (2 * h * (2 * h)) - 0.5),
        noise: next.sigma * phi.squareRoot())
    case .stochastic:
      let phi = exp(h) - 1
      weights = Weights(
        sample: next.alpha / here.alpha, output: -2 * (next.sigma * phi), slope: -(next.sigma * phi),
        slopeByHeun: -2 * (next.sigma * (phi / h - 1)), curvature: 0, noise: next.sigma * (exp(2 * h) - 1).squareRoot())
    }
    if solver == .heun { weights.slope = weights.slopeByHeun }
    return weights
  }
}
