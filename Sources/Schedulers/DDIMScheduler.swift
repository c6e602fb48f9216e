import LatentDiffusionComponents
import Tensor

/// Sampling that skips timesteps. It is deterministic with η = 0, which is the default, and adds DDPM's noise with η = 1 (`SamplingSettings.eta`).
///
/// Source: Song, Meng and Ermon, "Denoising diffusion implicit models", arXiv 2010.02502; diffusers' `DDIMScheduler`.
public struct DDIMScheduler: Scheduler {
  public let schedule: NoiseSchedule
  public var putsNoiseBack: Bool { true }
  public func signal(after step: Int) -> Float { alphas[schedule.timesteps[step] - Float(stride)].squareRoot() }
  private let alphas: AlphaTable
  private let prediction: PredictionType
  private let clipping: Clipping
  /// The number of training timesteps between two steps.
  private let stride: Int
  private let eta: Float

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DDIMScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(configuration, defaults: NoiseTable.Defaults())
    try table.check(steps: steps, for: .ddim)
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: true)
    stride = table.trainTimesteps / steps
    eta = try configuration.eta(default: 0)
    let spaced = try SpacedTimesteps(configuration, default: .leading, trainTimesteps: table.trainTimesteps)
    alphas = AlphaTable(table, setsAlphaToOne: configuration.setAlphaToOne ?? true)
    schedule = try alphas.schedule(
      spaced.reachingZero(steps: steps, rounded: true).map { Int($0) }, prediction: prediction, scheduler: .ddim)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let timestep = schedule.timesteps[step]
    let (alphaBar, previousAlphaBar) = (alphas[timestep], alphas[timestep - Float(stride)])
    let (betaBar, previousBetaBar) = (1 - alphaBar, 1 - previousAlphaBar)
    let (alpha, sigma) = (alphaBar.squareRoot(), betaBar.squareRoot())

    let original = clipping(prediction.original(sample, output, alpha: alpha, sigma: sigma))
    let epsilon = prediction.noise(sample, output, alpha: alpha, sigma: sigma)
    // Equation 16: σ_t = η √((1 − ᾱ_{t−1})/(1 − ᾱ_t)) √(1 − ᾱ_t/ᾱ_{t−1}).
    let deviation = eta * (previousBetaBar / betaBar * (1 - alphaBar / previousAlphaBar)).squareRoot()
    // Equation 12: √ᾱ_{t−1} x₀ + √(1 − ᾱ_{t−1} − σ_t²) ε + σ_t z.
    let direction = (1 - previousAlphaBar - deviation * deviation).squareRoot() * epsilon
    let mean = previousAlphaBar.squareRoot() * original + direction
    guard eta > 0 else { return StepResult(sample: mean, predictedOriginal: original) }
    return StepResult(sample: mean + deviation * noise.normal(like: sample), predictedOriginal: original)
  }
}
