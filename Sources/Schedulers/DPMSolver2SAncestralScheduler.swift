import Foundation
import LatentDiffusionComponents
import Tensor

/// DPM-Solver++ of second order, in single steps, to a noise level below the next one, and fresh noise up to the next one. People know it as DPM++ 2S a.
///
/// Source: `sample_dpmpp_2s_ancestral` of k-diffusion, after Lu et al., arXiv 2211.01095.
public struct DPMSolver2SAncestralScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let eta: Float
  private let noiseScale: Float
  /// Where a step started that waits for its second prediction.
  private var start: Tensor?

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerAncestralDiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`. All but the last take two predictions.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(kDiffusion: configuration, steps: steps, scheduler: .dpmSolver2SAncestral)
    prediction = try PredictionType(configuration)
    let eta = try configuration.eta(default: 1)
    self.eta = eta
    noiseScale = try configuration.noiseScale()
    schedule = try NoiseSchedule(
      twoPredictions: configuration, steps: steps, table: table, options: KarrasOptions(spacing: try SigmaSpacing(configuration))
    ) { AncestralStep(from: $0, to: $1, eta: eta).middle }
  }

  public var order: Int { 2 }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, [start].compactMap(\.self))
    if let start, step > 0 {
      self.start = nil
      let (sigma, next) = (schedule.levels[step - 1].sigma, schedule.levels[step].sigma)
      let way = AncestralStep(from: sigma, to: next, eta: eta)
      let original = prediction.original(sample, output, sigma: way.middle)
      let mean = move(start, original, from: sigma, to: way.down)
      return StepResult(sample: mean + noise.normal(like: sample) * (noiseScale * way.up), predictedOriginal: original)
    }
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    guard next > 0 else {
      return StepResult(sample: sample + (sample - original) / sigma * (next - sigma), predictedOriginal: original)
    }
    start = sample
    let middle = AncestralStep(from: sigma, to: next, eta: eta).middle
    return StepResult(sample: move(sample, original, from: sigma, to: middle), predictedOriginal: original)
  }

  /// A step of the ODE in log σ by one prediction of x₀.
  private func move(_ sample: Tensor, _ original: Tensor, from sigma: Float, to next: Float) -> Tensor {
    (next / sigma) * sample - expm1(log(next) - log(sigma)) * original
  }
}
