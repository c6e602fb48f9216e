import LatentDiffusionComponents
import Tensor

/// Euler's method to a noise level below the next one, and fresh noise up to the next one.
///
/// Source: `sample_euler_ancestral` of k-diffusion; diffusers' `EulerAncestralDiscreteScheduler`. diffusers
/// refuses predictions of the clean sample here; this scheduler takes them as Euler's method does.
public struct EulerAncestralDiscreteScheduler: Scheduler {
  public let schedule: NoiseSchedule
  public var putsNoiseBack: Bool { true }
  private let prediction: PredictionType
  private let eta: Float
  private let noiseScale: Float

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerAncestralDiscreteScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.keepsSignal = true
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .eulerAncestral)
    prediction = try PredictionType(configuration)
    eta = try configuration.eta(default: 1)
    noiseScale = try configuration.noiseScale()
    schedule = try NoiseSchedule(karras: configuration, steps: steps, table: table, options: KarrasOptions(spacing: configuration.spacing))
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    let way = AncestralStep(from: sigma, to: next, eta: eta)
    let derivative = (sample - original) / sigma
    let mean = sample + derivative * (way.down - sigma)
    return StepResult(sample: mean + noise.normal(like: sample) * (noiseScale * way.up), predictedOriginal: original)
  }
}
