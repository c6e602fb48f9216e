import LatentDiffusionComponents

/// A scheduler and the step at which the loop begins.
public struct Schedule: Sendable {
  /// As it is before the first step.
  public let scheduler: any Scheduler
  /// An index into the scheduler's timesteps.
  public let firstStep: Int

  /// - Parameters:
  ///   - scheduler: with its tables made.
  ///   - firstStep: an index into its timesteps.
  public init(_ scheduler: any Scheduler, firstStep: Int = 0) {
    self.scheduler = scheduler
    self.firstStep = firstStep
  }

  /// The last `strength` of the steps, rounded down, as diffusers' `get_timesteps` has it.
  ///
  /// - Parameters:
  ///   - steps: what the scheduler was made for; its timesteps can be more.
  ///   - strength: 0…1.
  public init(_ scheduler: any Scheduler, steps: Int, strength: Double) {
    let kept = min(Int(Double(steps) * strength), steps)
    self.init(scheduler, firstStep: (steps - kept) * scheduler.order)
  }
}
