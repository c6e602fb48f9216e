import LatentDiffusionComponents
import Tensor

/// Heun's method on the probability flow: a step of Euler's, and a second with the mean of the slopes at both ends.
///
/// All timesteps but the first stand twice in the table, and the last step, to σ = 0, is Euler's: 2 · steps − 1 predictions.
///
/// Source: Karras et al., arXiv 2206.00364, algorithm 1; diffusers' `HeunDiscreteScheduler`.
public struct HeunDiscreteScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  /// The start of a step that waits for its second prediction.
  private var start: Start?

  private struct Start: Codable {
    let sample: Tensor
    let derivative: Tensor
  }

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `HeunDiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(
      twoPredictions: configuration, steps: steps, scheduler: .heun, schedules: BetaSchedule.common + [.exponential])
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: false, thresholds: false)
    let single = try NoiseSchedule(
      karras: configuration, steps: steps, table: table, options: KarrasOptions(spacing: try SigmaSpacing(configuration)))
    schedule = NoiseSchedule(
      timesteps: single.timesteps.prefix(1) + single.timesteps.dropFirst().flatMap { [$0, $0] },
      levels: single.levels.prefix(1) + single.levels.dropFirst().dropLast().flatMap { [$0, $0] } + single.levels.suffix(1),
      initialNoiseScale: single.initialNoiseScale)
  }

  /// The same on another table, in which every step but the last stands twice, with the σ that it starts and ends with.
  init(_ schedule: NoiseSchedule, prediction: PredictionType) { (self.schedule, self.prediction, clipping) = (schedule, prediction, .none) }

  public var order: Int { 2 }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, [start?.sample, start?.derivative].compactMap(\.self))
    // The second prediction of a step is made at its end, whose σ stands at the same index.
    let sigma = schedule.levels[step].sigma
    let original = clipping(prediction.original(sample, output, sigma: sigma))
    let derivative = (sample - original) / sigma
    if let start, step > 0 {
      self.start = nil
      let mean = (start.derivative + derivative) / 2
      let sigmaStep = sigma - schedule.levels[step - 1].sigma
      let end = start.sample + mean * sigmaStep
      // Where the next step starts with more noise than this one ends with, that noise is fresh.
      let next = schedule.levels[step + 1].sigma
      guard next > sigma else { return StepResult(sample: end, predictedOriginal: original) }
      let added = noise.normal(like: sample) * (next * next - sigma * sigma).squareRoot()
      return StepResult(sample: end + added, predictedOriginal: original)
    }
    let sigmaStep = schedule.levels[step + 1].sigma - sigma
    start = Start(sample: sample, derivative: derivative)
    return StepResult(sample: sample + derivative * sigmaStep, predictedOriginal: original)
  }
}
