import LatentDiffusionComponents
import Tensor

/// Heun's method that looks two steps ahead: a step by the mean of the slopes at its start, at its end and at the next step's end, of which the first counts
/// most where there is little noise. Three predictions a step, two for the last but one, and one for the last.
///
/// Source: the sampler Heun++ of sd-webui-samplers-scheduler; ComfyUI's `sample_heunpp2`.
public struct HeunPP2Scheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  /// σ where the loop began.
  private var first: Float?
  /// The start of a step that waits for further predictions.
  private var start: Start?

  private struct Start: Codable {
    let sample: Tensor
    /// The slopes so far, one or two.
    var derivatives: [Tensor]
  }

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerDiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    prediction = try PredictionType(configuration)
    let single = try NoiseSchedule(kDiffusion: configuration, steps: steps, scheduler: .heunPP2)
    let places = single.timesteps.indices.flatMap { $0..<min($0 + 3, single.timesteps.count) }
    schedule = NoiseSchedule(
      timesteps: places.map { single.timesteps[$0] }, levels: places.map { single.levels[$0] } + single.levels.suffix(1),
      initialNoiseScale: single.initialNoiseScale)
  }

  public var order: Int { 3 }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, start.map { [$0.sample] + $0.derivatives } ?? [])
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    let begun = start.flatMap { (1...2).contains($0.derivatives.count) && $0.derivatives.count <= step ? $0 : nil }
    var way = begun ?? Start(sample: sample, derivatives: [])
    way.derivatives.append((sample - original) / sigma)
    let largest = first ?? sigma
    first = largest
    let count = way.derivatives.count
    // The table goes on to a lower σ where the step has another prediction, and the last step leads to 0.
    if next > 0, count == 1 || count == 2 && next < sigma {
      start = way
      return StepResult(sample: sample + way.derivatives[count - 1] * (next - sigma), predictedOriginal: original)
    }
    start = nil
    let begin = step + 1 - count
    let weights = (1..<max(count, 1)).map { schedule.levels[begin + $0].sigma / (Float(count) * largest) }
    let ahead = zip(weights, way.derivatives.dropFirst()).map { $0 * $1 }
    let slope = ahead.reduce((1 - weights.reduce(0, +)) * way.derivatives[0], +)
    let change = slope * (schedule.levels[begin + 1].sigma - schedule.levels[begin].sigma)
    return StepResult(sample: way.sample + change, predictedOriginal: original)
  }
}
