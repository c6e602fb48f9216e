import LatentDiffusionComponents
import Tensor

/// DDIM the other way, from a picture to the noise that it would be drawn from, for editing by inversion.
///
/// Source: Mokady, Hertz, Aberman, Pritch and Cohen-Or, "Null-text inversion", arXiv 2211.09794, section 3; diffusers' `DDIMInverseScheduler`.
public struct DDIMInverseScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  private let alphas: AlphaTable
  /// The number of training timesteps of a step.
  private let stride: Int

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DDIMInverseScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(configuration, defaults: NoiseTable.Defaults())
    try table.check(steps: steps, for: .ddimInverse)
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: true, thresholds: false)
    let spaced = try SpacedTimesteps(configuration, default: .leading, trainTimesteps: table.trainTimesteps)
    guard spaced.spacing != .linspace else {
      throw .unknownValue(key: "timestep_spacing", found: "linspace", known: ["leading", "trailing"])
    }
    let timesteps = spaced.reachingZero(steps: steps, rounded: true).reversed().map { Int($0) }
    alphas = AlphaTable(table, setsAlphaToOne: configuration.setAlphaToOne ?? true)
    // A step leads from a stride before its timestep up to it, and the network is told where it leads.
    stride = table.trainTimesteps / steps
    let reached = try alphas.schedule(timesteps, prediction: prediction, scheduler: .ddimInverse).levels.dropLast()
    let start = NoiseLevel(alphaCumprod: alphas[Float((timesteps.first ?? 0) - stride)])
    guard prediction != .sample || start.sigma > 0 else {
      throw .unusableValue(key: "prediction_type", found: "sample", needed: "epsilon or v_prediction, as no noise is there to begin with")
    }
    schedule = NoiseSchedule(timesteps: timesteps.map { Float($0) }, levels: [start] + reached)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let timestep = schedule.timesteps[step]
    let (here, next) = (NoiseLevel(alphaCumprod: alphas[timestep - Float(stride)]), NoiseLevel(alphaCumprod: alphas[timestep]))
    let original = clipping(prediction.original(sample, output, alpha: here.alpha, sigma: here.sigma))
    let epsilon = prediction.noise(sample, output, alpha: here.alpha, sigma: here.sigma)
    return StepResult(sample: next.alpha * original + next.sigma * epsilon, predictedOriginal: original)
  }
}
