import LatentDiffusionComponents
import Foundation
import Tensor

/// Ancestral sampling of the diffusion's reverse Markov chain.
///
/// Source: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", arXiv 2006.11239; diffusers' `DDPMScheduler`.
/// Learned variances are refused, and so is `fixed_large_log`, which diffusers cannot sample with.
public struct DDPMScheduler: Scheduler {
  /// The variance of the noise that a step adds (`variance_type`).
  enum Variance: String, CaseIterable, Codable {
    /// β̃_t, which is exact for data that are a single point.
    case fixedSmall = "fixed_small"
    /// β̃_t, computed through its logarithm.
    case fixedSmallLog = "fixed_small_log"
    /// β_t, which is exact for normally distributed data.
    case fixedLarge = "fixed_large"
  }

  public let schedule: NoiseSchedule
  private let alphas: AlphaTable
  private let prediction: PredictionType
  private let clipping: Clipping
  private let variance: Variance

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DDPMScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.schedules += [.sigmoid, .laplace]
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: "DDPM")
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: true)
    variance = try configuration.choice(.varianceType, configuration.varianceType, default: .fixedSmall)
    let spaced = try SpacedTimesteps(configuration, default: .leading, trainTimesteps: table.trainTimesteps)
    alphas = AlphaTable(table, setsAlphaToOne: true)
    schedule = try alphas.schedule(
      spaced.reachingZero(steps: steps, rounded: true).map { Int($0) }, prediction: prediction, scheduler: "DDPM")
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let timestep = schedule.timesteps[step]
    let previous = step + 1 < schedule.timesteps.count ? schedule.timesteps[step + 1] : -1
    let (alphaBar, previousAlphaBar) = (alphas[timestep], alphas[previous])
    let (betaBar, previousBetaBar) = (1 - alphaBar, 1 - previousAlphaBar)
    let alpha = alphaBar / previousAlphaBar
    let beta = 1 - alpha

    let original = clipping(prediction.original(sample, output, alpha: alphaBar.squareRoot(), sigma: betaBar.squareRoot()))
    // Equation 7: μ̃_t = √ᾱ_{t−1} β_t/(1 − ᾱ_t) x₀ + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) x_t.
    let originalWeight = previousAlphaBar.squareRoot() * beta / betaBar
    let sampleWeight = alpha.squareRoot() * previousBetaBar / betaBar
    let mean = originalWeight * original + sampleWeight * sample
    guard timestep > 0 else { return StepResult(sample: mean, predictedOriginal: original) }
    // β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) β_t.
    let posterior = max(previousBetaBar / betaBar * beta, 1e-20)
    let deviation =
      switch variance {
      case .fixedSmall: posterior.squareRoot()
      case .fixedSmallLog: exp(0.5 * log(posterior))
      case .fixedLarge: beta.squareRoot()
      }
    return StepResult(sample: mean + deviation * noise.normal(like: sample), predictedOriginal: original)
  }
}
