import Foundation
import LatentDiffusionComponents
import Tensor

/// Integration of the diffusion ODE with the polynomial through the last predictions of ε in log ρ, ρ = σ/α: DEIS of first to third order.
///
/// Source: Zhang and Chen, "Fast sampling of diffusion models with exponential integrator", arXiv 2204.13902 (log ρ); diffusers' `DEISMultistepScheduler`.
/// Flow matching is refused. As in diffusers, the names of other solvers in `algorithm_type` and `solver_type` stand for its own.
public struct DEISMultistepScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  /// Whether the last two steps are of first and second order.
  private let lowersOrder: Bool
  /// The last predictions of ε, as many as `solver_order`.
  private var history: MultistepHistory

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DEISMultistepScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`, and few enough that no two share a timestep.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .deis)
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: nil)
    _ = try configuration.algorithm(default: DPMSolverAlgorithm.deis, among: [.deis, .plain, .plusPlus], of: .deis)
    _ = try configuration.choice(.solverType, configuration.solverType, default: DPMSolverType.logrho)
    let order = try configuration.count(.solverOrder, configuration.solverOrder, default: 2, in: 1...3)
    history = MultistepHistory(capacity: order)
    let spacing = try SigmaSpacing(configuration)
    schedule = try NoiseSchedule(
      solver: configuration, steps: steps, table: table, scheduler: .deis,
      options: SolverOptions(
        spacing: spacing, final: .sigmaMin, rounded: spacing == .karras, endsWithSpacing: true, needsDistinct: order > 1))
    lowersOrder = configuration.lowerOrderFinal ?? true && schedule.timesteps.count < 15
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let (here, next) = (schedule.levels[step], schedule.levels[step + 1])
    let original = clipping(prediction.original(sample, output, alpha: here.alpha, sigma: here.sigma))
    history.add((sample - here.alpha * original) / here.sigma)
    let left = schedule.timesteps.count - step
    let most = lowersOrder ? min(left, 3) : 3
    let order = max(1, min(history.outputs.count, step + 1, most))
    guard order > 1 else {
      let change = next.sigma * (exp(next.lambda - here.lambda) - 1)
      return StepResult(sample: next.alpha / here.alpha * sample - change * history.outputs[0], predictedOriginal: original)
    }
    // x_t/α_t = x_s/α_s + Σ ε_i ∫ ℓ_i(log ρ) dρ, where ℓ_i is 1 at ρ_i and 0 at the others.
    let nodes = (0..<order).map { schedule.levels[step - $0].sigma / schedule.levels[step - $0].alpha }
    let end = next.sigma / next.alpha
    var sum = sample / here.alpha
    for (index, output) in zip(nodes.indices, history.outputs) {
      let others = (1..<order).map { nodes[(index + $0) % order] }
      sum = sum + (Self.integral(end, nodes[index], others) - Self.integral(nodes[0], nodes[index], others)) * output
    }
    return StepResult(sample: next.alpha * sum, predictedOriginal: original)
  }

  /// The antiderivative at ρ of the polynomial in log ρ that is 1 at a node and 0 at one or two others.
  private static func integral(_ rho: Float, _ node: Float, _ others: [Float]) -> Float {
    let (b, c, t) = (log(node), log(others[0]), log(rho))
    guard others.count > 1 else { return rho * (-c + t - 1) / (b - c) }
    let d = log(others[1])
    return rho * (c * (d - t + 1) - d * t + d + t * t - 2 * t + 2) / ((b - c) * (b - d))
  }
}
