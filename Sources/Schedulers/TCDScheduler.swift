import LatentDiffusionComponents
import Tensor

/// Trajectory consistency sampling: each step goes beyond the next timestep, and comes back to it by fresh noise.
///
/// γ, how far beyond, is `SamplingSettings.eta`; 0.3 by default. With 0 nothing is drawn.
///
/// Source: Zheng et al., "Trajectory consistency distillation", arXiv 2402.19159, algorithm 4; diffusers' `TCDScheduler`. As there, `clip_sample` and
/// `thresholding` have no effect.
public struct TCDScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let alphas: AlphaTable
  private let prediction: PredictionType
  private let gamma: Double

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `TCDScheduler`'s defaults.
  ///   - steps: how many predictions, at most `original_inference_steps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(
      configuration, defaults: NoiseTable.Defaults(betaStart: 0.00085, betaEnd: 0.012, schedule: .scaledLinear))
    prediction = try PredictionType(configuration)
    _ = try configuration.eta(default: 0.3)
    gamma = configuration.sampling.eta ?? 0.3
    alphas = AlphaTable(table, setsAlphaToOne: configuration.setAlphaToOne ?? true)
    schedule = try alphas.schedule(
      table.consistencyTimesteps(configuration, steps: steps, scheduler: .tcd), prediction: prediction, scheduler: .tcd)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let isLast = step + 1 >= schedule.timesteps.count
    let next = isLast ? 0 : schedule.timesteps[step + 1]
    let beyond = (Float(1 - gamma) * next).rounded(.down)
    let (alphaBar, nextAlphaBar, beyondAlphaBar) = (alphas[schedule.timesteps[step]], alphas[next], alphas[beyond])
    let (alpha, sigma) = (alphaBar.squareRoot(), (1 - alphaBar).squareRoot())
    let original = prediction.original(sample, output, alpha: alpha, sigma: sigma)
    let epsilon = prediction.noise(sample, output, alpha: alpha, sigma: sigma)
    let denoised = beyondAlphaBar.squareRoot() * original + (1 - beyondAlphaBar).squareRoot() * epsilon
    guard gamma > 0, !isLast else { return StepResult(sample: denoised, predictedOriginal: original) }
    let kept = nextAlphaBar / beyondAlphaBar
    return StepResult(
      sample: kept.squareRoot() * denoised + (1 - kept).squareRoot() * noise.normal(like: sample), predictedOriginal: original)
  }
}
