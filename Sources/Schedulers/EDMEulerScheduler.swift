import LatentDiffusionComponents
import Tensor

/// Euler's method for networks of Karras' preconditioning.
///
/// Source: Karras et al., arXiv 2206.00364, algorithm 2 without its correction; diffusers' `EDMEulerScheduler`.
public struct EDMEulerScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let preconditioning: EDMPreconditioning
  private let churn: Churn

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EDMEulerScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    preconditioning = try EDMPreconditioning(configuration)
    churn = try Churn(configuration)
    schedule = try NoiseSchedule(edm: configuration, steps: steps, preconditioning: preconditioning, scheduler: .edmEuler)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let start = churn.applied(to: sample, sigma: schedule.levels[step].sigma, steps: schedule.levels.count - 1, drawing: &noise)
    let original = preconditioning.original(start.sample, output, sigma: start.sigma)
    let derivative = (start.sample - original) / start.sigma
    let change = derivative * (schedule.levels[step + 1].sigma - start.sigma)
    return StepResult(sample: start.sample + change, predictedOriginal: original)
  }
}
