import LatentDiffusionComponents

extension DPMSolverMultistepScheduler {
  /// DPM-Solver++ for networks of Karras' preconditioning: samples are x = x₀ + σ ε.
  ///
  /// Source: diffusers' `EDMDPMSolverMultistepScheduler`.
  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EDMDPMSolverMultistepScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(edm configuration: SchedulerConfiguration, steps: Int) throws(SchedulerError) {
    let algorithm: DPMSolverAlgorithm = try configuration.algorithm(
      default: .plusPlus, among: [.plusPlus, .stochasticPlusPlus, .deis], of: .edmDPMSolverMultistep)
    guard algorithm != .stochasticPlusPlus || configuration.solverOrder ?? 2 < 3 else {
      throw .unusableValue(key: "solver_order", found: "3", needed: "1 or 2 with algorithm_type sde-dpmsolver++ of EDM")
    }
    let preconditioning = try EDMPreconditioning(configuration)
    let schedule = try NoiseSchedule(edm: configuration, steps: steps, preconditioning: preconditioning, scheduler: .edmDPMSolverMultistep)
    try self.init(
      configuration, schedule: schedule, preconditioning: preconditioning, algorithm: algorithm,
      endsAtZero: FinalSigma(configuration) == .zero)
  }
}
