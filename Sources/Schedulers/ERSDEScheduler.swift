import Foundation
import LatentDiffusionComponents
import Tensor

/// A solver of the SDE with an extended reverse-time noise, of third order, multistep.
///
/// Source: Cui, Zhang, Lu et al., "Elucidating the solution space of extended reverse-time SDE for diffusion models", arXiv 2309.06169, with its φ(σ) =
/// σ (exp(σ^0.3) + 10), for which 200 points take the place of the integrals; ComfyUI's `er_sde`.
public struct ERSDEScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let noiseScale: Float
  /// The last predictions of x₀.
  private var history = MultistepHistory(capacity: 3)

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerDiscreteScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    prediction = try PredictionType(configuration)
    noiseScale = try configuration.noiseScale()
    schedule = try NoiseSchedule(kDiffusion: configuration, steps: steps, scheduler: .erSDE)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    history.add(original)
    guard next > 0 else { return StepResult(sample: original, predictedOriginal: original) }
    let ratio = Float(Self.scale(Double(next)) / Self.scale(Double(sigma)))
    var result = ratio * sample + (1 - ratio) * original
    let (change, integrals) = (next - sigma, Self.integrals(from: Double(sigma), to: Double(next)))
    let (slope, curvature) = differences(at: step)
    if let slope { result = result + (change + Float(integrals.constant)) * slope }
    if let curvature { result = result + (change * change / 2 + Float(integrals.linear)) * curvature }
    let variance = next * next - sigma * sigma * ratio * ratio
    let drawn = noise.normal(like: sample) * noiseScale
    return StepResult(sample: result + drawn * max(variance, 0).squareRoot(), predictedOriginal: original)
  }

  /// φ(σ).
  private static func scale(_ sigma: Double) -> Double { sigma * (exp(pow(sigma, 0.3)) + 10) }

  /// φ(σ_t) ∫ 1/φ and φ(σ_t) ∫ (σ − σ_s)/φ over a step, by the rectangles' left sides.
  private static func integrals(from start: Double, to end: Double) -> (constant: Double, linear: Double) {
    let width = (start - end) / 200
    var sums = (constant: 0.0, linear: 0.0)
    for index in 0..<200 {
      let place = end + Double(index) * width
      sums.constant += 1 / scale(place)
      sums.linear += (place - start) / scale(place)
    }
    return (sums.constant * width * scale(end), sums.linear * width * scale(end))
  }

  /// The first and second divided differences of the predictions over σ.
  private func differences(at step: Int) -> (slope: Tensor?, curvature: Tensor?) {
    let outputs = history.outputs
    func sigma(_ back: Int) -> Float { schedule.levels[step - back].sigma }
    guard step > 0, outputs.count > 1 else { return (nil, nil) }
    let slope = (outputs[0] - outputs[1]) / (sigma(0) - sigma(1))
    guard step > 1, outputs.count > 2 else { return (slope, nil) }
    let before = (outputs[1] - outputs[2]) / (sigma(1) - sigma(2))
    return (slope, (slope - before) / ((sigma(0) - sigma(2)) / 2))
  }
}
