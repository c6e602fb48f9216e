import LatentDiffusionComponents
import Tensor

extension DPMSolverMultistepScheduler {
  /// DPM-Solver that runs the ODE the other way, from a picture to the noise that it would be drawn from.
  ///
  /// Source: diffusers' `DPMSolverMultistepInverseScheduler`. The SDE has no way back, so its algorithm types are refused.
  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DPMSolverMultistepInverseScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`, and few enough that no two share a timestep.
  /// - Throws: `SchedulerError`.
  public init(inverse configuration: SchedulerConfiguration, steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .dpmSolverMultistepInverse)
    let algorithm: DPMSolverAlgorithm = try configuration.algorithm(
      default: .plusPlus, among: [.plusPlus, .plain, .deis], of: .dpmSolverMultistepInverse)
    let spacing = try SigmaSpacing(configuration)
    let schedule = try NoiseSchedule(
      solver: configuration, steps: steps, table: table, scheduler: .dpmSolverMultistepInverse,
      options: SolverOptions(
        spacing: spacing, final: .sigmaMin, leastLambda: configuration.leastLambda, rounded: spacing == .karras,
        endsWithSpacing: true, needsDistinct: true, rises: true))
    try self.init(configuration, schedule: schedule, preconditioning: nil, algorithm: algorithm, endsAtZero: false)
  }
}
