import LatentDiffusionComponents
import Foundation
import Tensor

/// A multistep solver of the diffusion ODE (or SDE) in λ: DPM-Solver++ 2M and its relatives of first to third order.
///
/// Source: Lu, Zhou, Bao, Chen, Li and Zhu, "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models",
/// arXiv 2211.01095; diffusers' `DPMSolverMultistepScheduler`. Flow matching is refused.
public struct DPMSolverMultistepScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  /// How the network's answer is read where it is no ε, x₀ or velocity.
  private let preconditioning: EDMPreconditioning?
  private let algorithm: DPMSolverAlgorithm
  private let solver: DPMSolverType
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
    try table.check(steps: steps, for: .dpmSolverMultistep)
    prediction = try PredictionType(configuration)
    preconditioning = nil
    clipping = try Clipping(configuration, clips: nil)
    algorithm = try configuration.algorithm(default: .plusPlus, of: .dpmSolverMultistep)
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
    schedule = try NoiseSchedule(
      solver: configuration, steps: steps, table: table, scheduler: .dpmSolverMultistep,
      options: SolverOptions(
        spacing: spacing, final: final, leastLambda: configuration.leastLambda, rounded: rounded, endsWithSpacing: false,
        needsDistinct: solverOrder > 1))
    let lowersOrder = configuration.lowerOrderFinal ?? true && schedule.timesteps.count < 15
    lastIsFirstOrder = configuration.eulerAtFinal ?? false || lowersOrder || final == .zero
    lastButOneIsSecondOrder = lowersOrder
  }

  /// A solver of another table: diffusers' `DPMSolverMultistepInverseScheduler` and `EDMDPMSolverMultistepScheduler`.
  init(
    _ configuration: SchedulerConfiguration, schedule: NoiseSchedule, preconditioning: EDMPreconditioning?, algorithm: DPMSolverAlgorithm,
    endsAtZero: Bool
  ) throws(SchedulerError) {
    self.schedule = schedule
    self.preconditioning = preconditioning
    self.algorithm = algorithm
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: nil)
    solver = try configuration.choice(.solverType, configuration.solverType, default: .midpoint)
    history = MultistepHistory(capacity: try configuration.count(.solverOrder, configuration.solverOrder, default: 2, in: 1...3))
    lastButOneIsSecondOrder = configuration.lowerOrderFinal ?? true && schedule.timesteps.count < 15
    lastIsFirstOrder = configuration.eulerAtFinal ?? false || lastButOneIsSecondOrder || endsAtZero
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let (here, next) = (schedule.levels[step], schedule.levels[step + 1])
    let predicted =
      preconditioning?.original(sample, output, sigma: here.sigma)
      ?? prediction.original(sample, output, alpha: here.alpha, sigma: here.sigma)
    let original = clipping(predicted)
    history.add(
      algorithm.predictsOriginal ? original : prediction.noise(sample, output, clipped: clipping == .none ? nil : original, at: here))

    let drawn = algorithm.isStochastic ? noise.normal(like: sample) : nil
    // The last step may lead to the noise level it starts from: nothing is left to do.
    guard here.lambda != next.lambda else { return StepResult(sample: sample, predictedOriginal: original) }
    let weights = DPMSolverWeights(algorithm, solver, from: here, to: next)
    let differences = differences(at: step, order: order(at: step), from: here, to: next)
    let result = weights.combined(
      sample, output: history.outputs[0], slope: differences.first, curvature: differences.dropFirst().first, noise: drawn)
    return StepResult(sample: result, predictedOriginal: original)
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
}
