import Foundation
import LatentDiffusionComponents
import Tensor

/// Linear multistep sampling of fourth order on v, with α and σ on a circle and timesteps from 1 to 0. It is for networks that were trained so.
///
/// Source: v-diffusion's `iplms` sampler, after Liu et al., arXiv 2202.09778; diffusers' `IPNDMScheduler`.
public struct IPNDMScheduler: Scheduler {
  public let schedule: NoiseSchedule
  /// The last predictions of ε.
  private var history = MultistepHistory(capacity: 4)

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `IPNDMScheduler`'s defaults. `trained_betas` are σ of all steps and after the last.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    _ = try configuration.trainTimesteps(default: 1000, steps: steps, scheduler: .ipndm)
    var sigmas = NoiseTable.equalSteps(from: 1, to: 0, count: steps + 1).map { sin($0 * Float.pi / 2) }.map { $0 * $0 }
    if let own = configuration.trainedBetas {
      guard own.count == steps + 1, own.allSatisfy({ 0...1 ~= $0 }) else {
        throw .unusableValue(key: "trained_betas", found: "a list of \(own.count)", needed: "\(steps + 1) numbers from 0 to 1 for IPNDM")
      }
      sigmas = own.map { Float($0) }
    }
    let levels = sigmas.map { NoiseLevel(alpha: (1 - $0 * $0).squareRoot(), sigma: $0) }
    schedule = NoiseSchedule(timesteps: levels.dropLast().map { Float(Double(atan2($0.sigma, $0.alpha)) / Double.pi * 2) }, levels: levels)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let (here, next) = (schedule.levels[step], schedule.levels[step + 1])
    history.add(sample * here.sigma + output * here.alpha)
    let slope = history.adamsBashforth
    let original = (sample - here.sigma * slope) / max(here.alpha, 1e-8)
    return StepResult(
      sample: next.alpha * original + slope * next.sigma, predictedOriginal: here.alpha * sample - here.sigma * output)
  }
}
