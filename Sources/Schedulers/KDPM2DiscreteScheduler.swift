import LatentDiffusionComponents
import Tensor

/// DPM-Solver-2 on the probability flow: a step by the slope in its middle, which is halfway in log σ. The last step is Euler's.
///
/// Source: `sample_dpm_2` of k-diffusion, after Karras et al., arXiv 2206.00364, algorithm 2; diffusers' `KDPM2DiscreteScheduler`. diffusers refuses
/// predictions of the clean sample here; this scheduler takes them as Euler's method does.
public struct KDPM2DiscreteScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  /// Where a step started that waits for its second prediction.
  private var start: Tensor?

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `KDPM2DiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`. All but the last take two predictions.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(twoPredictions: configuration, steps: steps, scheduler: .kdpm2)
    prediction = try PredictionType(configuration)
    schedule = try NoiseSchedule(
      twoPredictions: configuration, steps: steps, table: table,
      options: KarrasOptions(spacing: try SigmaSpacing(configuration), roundsKarras: true), middle: halfway)
  }

  public var order: Int { 2 }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, [start].compactMap(\.self))
    if let start, step > 0 {
      self.start = nil
      let (sigma, next) = (schedule.levels[step - 1].sigma, schedule.levels[step].sigma)
      let middle = halfway(sigma, next)
      let original = prediction.original(sample, output, sigma: middle)
      return StepResult(sample: start + (sample - original) / middle * (next - sigma), predictedOriginal: original)
    }
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    let middle = next > 0 ? halfway(sigma, next) : 0
    start = sample
    return StepResult(sample: sample + (sample - original) / sigma * (middle - sigma), predictedOriginal: original)
  }
}
