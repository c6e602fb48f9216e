import LatentDiffusionComponents

/// A scheduler and the step at which the loop begins.
public struct Schedule: Sendable {
  /// As it is before the first step.
  public let scheduler: any Scheduler
  /// An index into the scheduler's timesteps.
  public private(set) var firstStep: Int
  /// The step before which the loop ends; as many as the scheduler has timesteps, unless another model goes on.
  public private(set) var endStep: Int
  /// The steps of all models together, of which this one runs those from `firstStep` on; more where another model begins or ends the denoising.
  private(set) var denoising: Range<Int>
  /// The timesteps of the training (`num_train_timesteps`), by which a part of the denoising is measured.
  public var trainingSteps = 1000

  /// - Parameters:
  ///   - scheduler: with its tables made.
  ///   - firstStep: an index into its timesteps.
  public init(_ scheduler: any Scheduler, firstStep: Int = 0) {
    self.scheduler = scheduler
    self.firstStep = firstStep
    endStep = scheduler.timesteps.count
    denoising = min(firstStep, endStep)..<endStep
  }

  /// The part of the schedule that a model does where others do the rest. Source: `denoising_start` in `get_timesteps` and `denoising_end` of diffusers'
  /// `StableDiffusionXLImg2ImgPipeline`.
  func limited(from start: Double?, to end: Double?) -> Schedule {
    var result = self
    let timesteps = scheduler.timesteps
    func cutoff(_ part: Double) -> Float { Float((Double(trainingSteps) - part * Double(trainingSteps)).rounded(.toNearestOrEven)) }
    if let start {
      result.denoising = 0..<timesteps.count
      let cutoff = cutoff(start)
      // All predictions of a step belong together.
      let order = max(scheduler.order, 1)
      result.firstStep = timesteps.count { $0 >= cutoff } / order * order
    }
    if let end {
      let cutoff = cutoff(end)
      result.endStep = min(timesteps.count, result.firstStep + timesteps.dropFirst(result.firstStep).count { $0 >= cutoff })
    }
    return result
  }

  /// The last `strength` of the steps, rounded down, as diffusers' `get_timesteps` has it.
  ///
  /// - Parameters:
  ///   - steps: what the scheduler was made for; its timesteps can be more.
  ///   - strength: 0…1.
  public init(_ scheduler: any Scheduler, steps: Int, strength: Double) {
    let kept = min(Int(Double(steps) * strength), steps)
    let first = (steps - kept) * scheduler.order
    // The last steps of a scheduler can take fewer predictions than the others.
    self.init(scheduler, firstStep: kept > 0 ? min(first, scheduler.timesteps.count - 1) : first)
  }
}
