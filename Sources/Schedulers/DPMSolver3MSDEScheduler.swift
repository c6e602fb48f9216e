import Foundation
import LatentDiffusionComponents
import Tensor

/// DPM-Solver++ of third order on the SDE, multistep, with noise from a Brownian path. People know it as DPM++ 3M SDE.
///
/// Source: `sample_dpmpp_3m_sde` of k-diffusion.
public struct DPMSolver3MSDEScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let eta: Float
  private let noiseScale: Float
  private var path: BrownianPath
  /// The last predictions of x₀.
  private var history = MultistepHistory(capacity: 3)

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerDiscreteScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    prediction = try PredictionType(configuration)
    eta = try configuration.eta(default: 1)
    noiseScale = try configuration.noiseScale()
    path = try BrownianPath(configuration)
    schedule = try NoiseSchedule(kDiffusion: configuration, steps: steps, scheduler: .dpmSolver3MSDE)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    history.add(original)
    guard next > 0 else { return StepResult(sample: original, predictedOriginal: original) }
    let h = log(sigma) - log(next), tilted = h * (eta + 1)
    var result = exp(-tilted) * sample + -expm1(-tilted) * original
    let (slope, curvature) = differences(at: step, h: h)
    let phi = expm1(-tilted) / tilted + 1
    if let slope { result = result + phi * slope }
    if let curvature { result = result - (phi / tilted - 0.5) * curvature }
    if eta > 0 {
      let scale = next * (-expm1(-2 * h * eta)).squareRoot() * noiseScale
      result = result + path.noise(from: sigma, to: next, of: schedule, like: sample, drawing: &noise) * scale
    }
    return StepResult(sample: result, predictedOriginal: original)
  }

  /// The divided differences of the last predictions over log σ, in units of the step.
  private func differences(at step: Int, h: Float) -> (slope: Tensor?, curvature: Tensor?) {
    let outputs = history.outputs
    guard step > 0, outputs.count > 1 else { return (nil, nil) }
    func length(_ step: Int) -> Float { log(schedule.levels[step].sigma) - log(schedule.levels[step + 1].sigma) }
    let r0 = length(step - 1) / h
    let newest = (outputs[0] - outputs[1]) / r0
    guard step > 1, outputs.count > 2 else { return (newest, nil) }
    let r1 = length(step - 2) / h
    let before = (outputs[1] - outputs[2]) / r1
    return (newest + (newest - before) * (r0 / (r0 + r1)), (newest - before) / (r0 + r1))
  }
}
