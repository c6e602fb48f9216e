import LatentDiffusionComponents
import Tensor

/// DPM-Solver in groups of steps: the first of a group is of first order, and each further one goes from the group's start by all of its predictions.
///
/// Source: Lu et al., "DPM-Solver: a fast ODE solver", arXiv 2206.00927, and arXiv 2211.01095; diffusers' `DPMSolverSinglestepScheduler`. Flow
/// matching is refused.
public struct DPMSolverSinglestepScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  private let algorithm: DPMSolverAlgorithm
  private let solver: DPMSolverType
  private let endsAtZero: Bool
  private let lowersOrder: Bool
  /// The last converted predictions, as many as `solver_order`.
  private var history: MultistepHistory
  /// The sample at the group's start.
  private var start: Tensor?

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DPMSolverSinglestepScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`, and few enough that no two share a timestep.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .dpmSolverSinglestep)
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: nil)
    algorithm = try configuration.algorithm(
      default: .plusPlus, among: [.plusPlus, .plain, .stochasticPlusPlus, .deis], of: .dpmSolverSinglestep)
    solver = try configuration.choice(.solverType, configuration.solverType, default: .midpoint)
    let order = try configuration.count(.solverOrder, configuration.solverOrder, default: 2, in: 1...3)
    let final = try FinalSigma(configuration)
    guard algorithm != .plain || final != .zero else {
      throw .unusableValue(key: "final_sigmas_type", found: "zero", needed: "sigma_min with algorithm_type dpmsolver")
    }
    guard algorithm != .plain || clipping == .none else {
      throw .unusableValue(key: "thresholding", found: "true", needed: "false with algorithm_type dpmsolver of the singlestep solver")
    }
    history = MultistepHistory(capacity: order)
    endsAtZero = final == .zero
    let spacing = try SigmaSpacing(configuration)
    schedule = try NoiseSchedule(
      solver: configuration, steps: steps, table: table, scheduler: .dpmSolverSinglestep,
      options: SolverOptions(
        spacing: spacing, final: final, leastLambda: configuration.leastLambda, rounded: spacing == .karras,
        endsWithSpacing: false, needsDistinct: order > 1, isEven: true))
    // Groups that are not whole need lower orders at the end, and so does a step to σ = 0.
    lowersOrder = configuration.lowerOrderFinal ?? false || !schedule.timesteps.count.isMultiple(of: order) || endsAtZero
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs + [start].compactMap(\.self))
    let (here, next) = (schedule.levels[step], schedule.levels[step + 1])
    let original = clipping(prediction.original(sample, output, alpha: here.alpha, sigma: here.sigma))
    history.add(algorithm.predictsOriginal ? original : prediction.noise(sample, output, clipped: nil, at: here))
    let drawn = algorithm.isStochastic ? noise.normal(like: sample) : nil

    let order = max(1, min(order(at: step), history.outputs.count, step + 1))
    let start = order == 1 ? sample : self.start ?? sample
    self.start = start
    let first = schedule.levels[step - order + 1]
    // A step may lead to the noise level it starts from: nothing is left to do.
    guard first.lambda != next.lambda else { return StepResult(sample: start, predictedOriginal: original) }
    let weights = DPMSolverWeights(algorithm, solver, from: first, to: next)
    let differences = differences(at: step, order: order, from: first, to: next)
    let result = weights.combined(
      start, output: history.outputs[order - 1], slope: differences.first, curvature: differences.dropFirst().first, byHeun: order == 3,
      noise: drawn)
    return StepResult(sample: result, predictedOriginal: original)
  }

  /// The place in its group, from 1. Source: `get_order_list`.
  private func order(at step: Int) -> Int {
    let (count, order) = (schedule.timesteps.count, max(history.capacity, 1))
    if endsAtZero, step + 1 >= count { return 1 }
    guard lowersOrder, count.isMultiple(of: order), order > 1 else { return step % order + 1 }
    // The last group is a group of an order less, and one step.
    return step + 1 == count ? 1 : step % order + 1
  }

  /// The divided differences of the group's predictions over λ, in units of the step: D₁, and D₂ with `heun`.
  private func differences(at step: Int, order: Int, from first: NoiseLevel, to next: NoiseLevel) -> [Tensor] {
    guard order > 1 else { return [] }
    let (outputs, h) = (history.outputs, next.lambda - first.lambda)
    let r0 = (schedule.levels[step].lambda - first.lambda) / h
    let newest = (1 / r0) * (outputs[0] - outputs[order - 1])
    guard order > 2, solver == .heun else { return [newest] }
    let r1 = (schedule.levels[step - 1].lambda - first.lambda) / h
    let before = (1 / r1) * (outputs[1] - outputs[2])
    return [(r0 * before - r1 * newest) / (r0 - r1), 2 * (newest - before) / (r0 - r1)]
  }
}
