import Foundation
import LatentDiffusionComponents
import Tensor

/// Multistep sampling of consistency models: each step guesses the clean sample, all but the last add noise again. The network is told 250 log σ.
///
/// Source: Song, Dhariwal, Chen and Sutskever, "Consistency models", arXiv 2303.01469, algorithm 1; diffusers' `CMStochasticIterativeScheduler`.
public struct CMStochasticIterativeScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let sigmaData: Float
  private let smallest: Float
  private let largest: Float
  private let noiseScale: Float
  private let clips: Bool

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `CMStochasticIterativeScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let trained = try configuration.trainTimesteps(default: 40, atLeast: 2, steps: steps, scheduler: .cmStochasticIterative)
    let data = try configuration.number(.sigmaData, configuration.sigmaData, default: 0.5, in: 1e-6...1e6)
    let limits = try SigmaLimits(configuration, largest: 80, smallest: 0.002)
    let rho = Double(try configuration.number(.rho, configuration.rho, default: 7, in: 0.1...100))
    noiseScale =
      try configuration.noiseScale() * configuration.number(.sNoise, configuration.sNoise, default: 1, in: 0...10)
    (sigmaData, clips) = (data, configuration.clipDenoised ?? true)
    (smallest, largest) = (Float(limits.smallest), Float(limits.largest))
    // Multiples of the stride on Karras' table of all timesteps.
    let ramps = (0..<steps).map { Double($0 * (trained / steps)) / Double(trained - 1) }
    let (start, end) = (pow(limits.largest, 1 / rho), pow(limits.smallest, 1 / rho))
    let sigmas = try configuration.customSigmas(steps: steps) ?? ramps.map { pow(start + $0 * (end - start), rho) }
    schedule = NoiseSchedule(
      timesteps: sigmas.map { Float(250 * log($0)) },
      levels: (sigmas + [limits.smallest]).map {
        NoiseLevel(alpha: 1, sigma: Float($0), inputDivisor: Float(($0 * $0 + Double(data * data)).squareRoot()))
      }, initialNoiseScale: Float(sigmas[0]))
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    // The boundary condition: at σ_min the consistency function is the identity (appendix C).
    let (above, variance) = (sigma - smallest, sigmaData * sigmaData)
    let out = above * sigmaData / (sigma * sigma + variance).squareRoot()
    let guess = out * output + (variance / (above * above + variance)) * sample
    let denoised = clips ? guess.clamped(to: -1...1) : guess
    guard schedule.timesteps.count > 1 else { return StepResult(sample: denoised, predictedOriginal: denoised) }
    let kept = min(max(next, smallest), largest)
    let scale = noiseScale * (kept * kept - smallest * smallest).squareRoot()
    return StepResult(sample: denoised + noise.normal(like: sample) * scale, predictedOriginal: denoised)
  }
}
