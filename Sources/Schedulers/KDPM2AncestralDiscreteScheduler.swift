import LatentDiffusionComponents
import Tensor

/// DPM-Solver-2 to a noise level below the next one, and fresh noise up to the next one. The last step is Euler's.
///
/// Source: `sample_dpm_2_ancestral` of k-diffusion; diffusers' `KDPM2AncestralDiscreteScheduler`. diffusers refuses predictions of the clean sample here;
/// this scheduler takes them as Euler's method does.
public struct KDPM2AncestralDiscreteScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let eta: Float
  private let noiseScale: Float
  /// Where a step started that waits for its second prediction.
  private var start: Tensor?

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `KDPM2AncestralDiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`. All but the last take two predictions.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(twoPredictions: configuration, steps: steps, scheduler: .kdpm2Ancestral)
    prediction = try PredictionType(configuration)
    let eta = try configuration.eta(default: 1)
    self.eta = eta
    noiseScale = try configuration.noiseScale()
    schedule = try NoiseSchedule(
      twoPredictions: configuration, steps: steps, table: table,
      options: KarrasOptions(spacing: try SigmaSpacing(configuration), roundsKarras: true)
    ) { AncestralStep(from: $0, to: $1, eta: eta).middle }
  }

  public var order: Int { 2 }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, [start].compactMap(\.self))
    if let start, step > 0 {
      self.start = nil
      let (sigma, next) = (schedule.levels[step - 1].sigma, schedule.levels[step].sigma)
      let way = AncestralStep(from: sigma, to: next, eta: eta)
      let original = prediction.original(sample, output, sigma: way.middle)
      let mean = start + (sample - original) / way.middle * (way.down - sigma)
      return StepResult(sample: mean + noise.normal(like: sample) * (noiseScale * way.up), predictedOriginal: original)
    }
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    let middle = next > 0 ? AncestralStep(from: sigma, to: next, eta: eta).middle : 0
    start = sample
    return StepResult(sample: sample + (sample - original) / sigma * (middle - sigma), predictedOriginal: original)
  }
}
