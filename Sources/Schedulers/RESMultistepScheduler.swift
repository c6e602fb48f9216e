import Foundation
import LatentDiffusionComponents
import Tensor

/// An exponential integrator of second order in log σ, multistep. With η above 0 it is ancestral.
///
/// Source: Zhang, Cai, Xing et al., "Improved order analysis and design of exponential integrator for diffusion models sampling", arXiv 2308.02157 (RES);
/// ComfyUI's `res_multistep`, whose noise is ours where η is above 0.
public struct RESMultistepScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let eta: Float
  private let noiseScale: Float
  /// The last predictions of x₀.
  private var history = MultistepHistory(capacity: 2)

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerDiscreteScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    prediction = try PredictionType(configuration)
    eta = try configuration.eta(default: 0)
    noiseScale = try configuration.noiseScale()
    schedule = try NoiseSchedule(kDiffusion: configuration, steps: steps, scheduler: .resMultistep)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    history.add(original)
    let way = AncestralStep(from: sigma, to: next, eta: eta)
    var result = sample + (sample - original) / sigma * (way.down - sigma)
    if way.down > 0, step > 0, history.outputs.count > 1 {
      let before = schedule.levels[step - 1].sigma
      let h = log(sigma) - log(way.down)
      // Where the prediction before was made, in units of the step, from where the last step led by the ODE.
      let place = (log(AncestralStep(from: before, to: sigma, eta: eta).down) - log(before)) / h
      let phi1 = expm1(-h) / -h
      let phi2 = (phi1 - 1) / -h
      if place != 0, place.isFinite {
        result = exp(-h) * sample + h * ((phi1 - phi2 / place) * original + (phi2 / place) * history.outputs[1])
      }
    }
    guard eta > 0, next > 0 else { return StepResult(sample: result, predictedOriginal: original) }
    return StepResult(sample: result + noise.normal(like: sample) * (noiseScale * way.up), predictedOriginal: original)
  }
}
