import LatentDiffusionComponents
import Foundation
import Tensor

/// Multistep consistency sampling: each step guesses the clean latents, all but the last add noise again.
///
/// Its timesteps are some of the `original_inference_steps` of the teacher that the model was distilled from.
///
/// Source: Luo, Tan, Huang, Li and Zhao, "Latent consistency models", arXiv 2310.04378; diffusers' `LCMScheduler`.
public struct LCMScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let alphas: AlphaTable
  private let prediction: PredictionType
  private let clipping: Clipping
  private let timestepScaling: Float

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `LCMScheduler`'s defaults.
  ///   - steps: how many predictions, at most `original_inference_steps · strength`.
  ///   - strength: above 0, at most 1: how far into the noise the first timestep lies, for image-to-image that makes all its steps.
  /// - Throws: `SchedulerError`.
  public init(
    _ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int, strength: Double = 1
  ) throws(SchedulerError) {
    let table = try NoiseTable(
      configuration, defaults: NoiseTable.Defaults(betaStart: 0.00085, betaEnd: 0.012, schedule: .scaledLinear))
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: false)
    timestepScaling = try configuration.number(.timestepScaling, configuration.timestepScaling, default: 10, in: 1e-6...1e9)
    let timesteps = try table.consistencyTimesteps(configuration, steps: steps, strength: strength, scheduler: .lcm)
    alphas = AlphaTable(table, setsAlphaToOne: true)
    schedule = try alphas.schedule(timesteps, prediction: prediction, scheduler: .lcm)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let timestep = schedule.timesteps[step]
    let alphaBar = alphas[timestep]
    let original = clipping(
      prediction.original(sample, output, alpha: alphaBar.squareRoot(), sigma: (1 - alphaBar).squareRoot()))
    // The boundary condition: at t = 0 the consistency function is the identity (appendix D; σ_data = ½).
    let scaled = timestep * timestepScaling
    let skip = 0.25 / (scaled * scaled + 0.25)
    let out = scaled / (scaled * scaled + 0.25).squareRoot()
    let denoised = out * original + skip * sample
    guard step + 1 < schedule.timesteps.count else { return StepResult(sample: denoised, predictedOriginal: denoised) }
    let nextAlphaBar = alphas[schedule.timesteps[step + 1]]
    let next = nextAlphaBar.squareRoot() * denoised + (1 - nextAlphaBar).squareRoot() * noise.normal(like: sample)
    return StepResult(sample: next, predictedOriginal: denoised)
  }
}
