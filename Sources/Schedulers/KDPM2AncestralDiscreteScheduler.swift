import Foundation
import LatentDiffusionComponents
import Tensor

/// DPM-Solver-2 to a noise level below the next one, and fresh noise up to the next one. The last step is Euler's.
///
/// Source: `sample_dpm_2_ancestral` of k-diffusion; diffusers' `KDPM2AncestralDiscreteScheduler`. diffusers refuses predictions of the clean sample here;
/// this scheduler takes them as Euler's method does.
public struct KDPM2AncestralDiscreteScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let eta: Float
  private let noiseScale: Float
  /// Where a step started that waits for its second prediction.
  private var start: Tensor?

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `KDPM2AncestralDiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`. All but the last take two predictions.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults(betaStart: 0.00085, betaEnd: 0.012)
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: "KDPM2 ancestral")
    prediction = try PredictionType(configuration)
    let eta = try configuration.eta(default: 1)
    self.eta = eta
    noiseScale = try configuration.noiseScale()
    let single = try NoiseSchedule(
      karras: configuration, steps: steps, table: table,
      options: KarrasOptions(spacing: try SigmaSpacing(configuration), roundsKarras: true))
    let sigmas = single.levels.map(\.sigma).dropLast()
    schedule = single.interleaved(with: zip(sigmas, sigmas.dropFirst()).map { Self.middle($0, $1, eta) }, of: table)
  }

  public var order: Int { 2 }

  /// Halfway in log σ to where the ODE's part of the step ends.
  private static func middle(_ sigma: Float, _ next: Float, _ eta: Float) -> Float {
    exp((log(sigma) + log(AncestralStep(from: sigma, to: next, eta: eta).down)) / 2)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, [start].compactMap(\.self))
    if let start, step > 0 {
      self.start = nil
      let (sigma, next) = (schedule.levels[step - 1].sigma, schedule.levels[step].sigma)
      let (middle, way) = (Self.middle(sigma, next, eta), AncestralStep(from: sigma, to: next, eta: eta))
      let original = prediction.original(sample, output, sigma: middle)
      let mean = start + (sample - original) / middle * (way.down - sigma)
      return StepResult(sample: mean + noise.normal(like: sample) * (noiseScale * way.up), predictedOriginal: original)
    }
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    let middle = next > 0 ? Self.middle(sigma, next, eta) : 0
    start = sample
    return StepResult(sample: sample + (sample - original) / sigma * (middle - sigma), predictedOriginal: original)
  }
}
