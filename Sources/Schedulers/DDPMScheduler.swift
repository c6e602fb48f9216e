import LatentDiffusionComponents
import Foundation
import Tensor

/// Ancestral sampling of the diffusion's reverse Markov chain.
///
/// Source: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", arXiv 2006.11239; diffusers' `DDPMScheduler`.
/// Where the variance is learned, predictions have twice the sample's channels.
public struct DDPMScheduler: Scheduler {
  /// The variance of the noise that a step adds (`variance_type`).
  enum Variance: String, CaseIterable, Codable {
    /// β̃_t, which is exact for data that are a single point.
    case fixedSmall = "fixed_small"
    /// β̃_t, computed through its logarithm.
    case fixedSmallLog = "fixed_small_log"
    /// β_t, which is exact for normally distributed data.
    case fixedLarge = "fixed_large"
    /// β_t, computed through its logarithm. diffusers draws with the root of the logarithm here, which is no number.
    case fixedLargeLog = "fixed_large_log"
    /// What the network predicts.
    case learned
    /// Between β̃_t and β_t, linear in the logarithm, at the place that the network predicts, −1…1 (Nichol and Dhariwal, arXiv 2102.09672, equation 15).
    case learnedRange = "learned_range"
  }

  public let schedule: NoiseSchedule
  public var takesVariance: Bool { variance == .learned || variance == .learnedRange }
  private let alphas: AlphaTable
  private let predicts: PredictionType
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
    try table.check(steps: steps, for: .ddpm)
    predicts = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: true)
    variance = try configuration.choice(.varianceType, configuration.varianceType, default: .fixedSmall)
    let spaced = try SpacedTimesteps(configuration, default: .leading, trainTimesteps: table.trainTimesteps)
    alphas = AlphaTable(table, setsAlphaToOne: true)
    schedule = try alphas.schedule(
      spaced.reachingZero(steps: steps, rounded: true).map { Int($0) }, prediction: predicts, scheduler: .ddpm)
  }

  public mutating func advance(
    _ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    let (output, predictedVariance) = try split(prediction, for: sample)
    try check(step, sample, output)
    let timestep = schedule.timesteps[step]
    let previous = step + 1 < schedule.timesteps.count ? schedule.timesteps[step + 1] : -1
    let (alphaBar, previousAlphaBar) = (alphas[timestep], alphas[previous])
    let (betaBar, previousBetaBar) = (1 - alphaBar, 1 - previousAlphaBar)
    let alpha = alphaBar / previousAlphaBar
    let beta = 1 - alpha

    let original = clipping(predicts.original(sample, output, alpha: alphaBar.squareRoot(), sigma: betaBar.squareRoot()))
    // Equation 7: μ̃_t = √ᾱ_{t−1} β_t/(1 − ᾱ_t) x₀ + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) x_t.
    let originalWeight = previousAlphaBar.squareRoot() * beta / betaBar
    let sampleWeight = alpha.squareRoot() * previousBetaBar / betaBar
    let mean = originalWeight * original + sampleWeight * sample
    guard timestep > 0 else { return StepResult(sample: mean, predictedOriginal: original) }
    // β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) β_t.
    let posterior = max(previousBetaBar / betaBar * beta, 1e-20)
    let drawn = noise.normal(like: sample)
    let added =
      switch variance {
      case .fixedSmall: posterior.squareRoot() * drawn
      case .fixedSmallLog: exp(0.5 * log(posterior)) * drawn
      case .fixedLarge: beta.squareRoot() * drawn
      case .fixedLargeLog: exp(0.5 * log(beta)) * drawn
      case .learned: predictedVariance.map { $0.squareRoot() } * drawn
      case .learnedRange:
        predictedVariance.map { place in
          let part = (place + 1) / 2
          return exp(0.5 * (part * log(beta) + (1 - part) * log(posterior)))
        } * drawn
      }
    return StepResult(sample: mean + added, predictedOriginal: original)
  }

  /// What is predicted of the sample, and of the variance. Without a learned one the second is the first.
  private func split(_ prediction: Tensor, for sample: Tensor) throws(SchedulerError) -> (Tensor, Tensor) {
    guard takesVariance else { return (prediction, prediction) }
    let channels = sample.shape.columns
    guard prediction.shape == Shape(sample.shape.dimensions.dropLast() + [2 * channels]) else {
      throw .shapeMismatch(sample: sample.shape, prediction: prediction.shape)
    }
    return (prediction.channels(0..<channels), prediction.channels(channels..<2 * channels))
  }
}
