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

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerAncestralDiscreteScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.keepsSignal = true
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: "Euler ancestral")
    prediction = try PredictionType(configuration)
    schedule = try NoiseSchedule(karras: configuration, steps: steps, table: table)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    // σ_up² = σ_{i+1}² (σ_i² − σ_{i+1}²)/σ_i², and σ_down² + σ_up² = σ_{i+1}².
    let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).squareRoot()
    let down = (next * next - up * up).squareRoot()
    let derivative = (sample - original) / sigma
    let mean = sample + derivative * (down - sigma)
    return StepResult(sample: mean + noise.normal(like: sample) * up, predictedOriginal: original)
  }
}
