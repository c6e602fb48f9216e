import LatentDiffusionComponents
import Tensor

/// Heun's method on the probability flow: a step of Euler's, and a second with the mean of the slopes at both ends.
///
/// All timesteps but the first stand twice in the table, and the last step, to σ = 0, is Euler's: 2 · steps − 1 predictions.
///
/// Source: Karras et al., arXiv 2206.00364, algorithm 1; diffusers' `HeunDiscreteScheduler`.
public struct HeunDiscreteScheduler: Scheduler {
  private let schedule: SigmaSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  /// Where the step began, while it waits for its second prediction.
  private var start: Start?

  private struct Start {
    let sample: Tensor
    let derivative: Tensor
    let sigmaStep: Float
  }

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `HeunDiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults(betaStart: 0.00085, betaEnd: 0.012)
    defaults.schedules += [.exponential]
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: "Heun")
    prediction = try PredictionType(configuration)
    clipping = try Clipping(configuration, clips: false, thresholds: false)
    var schedule = try SigmaSchedule(
      configuration, steps: steps, table: table, options: SigmaSchedule.Options(shape: try SigmaShape(configuration)))
    schedule.timesteps = schedule.timesteps.prefix(1) + schedule.timesteps.dropFirst().flatMap { [$0, $0] }
    schedule.sigmas =
      schedule.sigmas.prefix(1) + schedule.sigmas.dropFirst().dropLast().flatMap { [$0, $0] } + schedule.sigmas.suffix(1)
    self.schedule = schedule
  }

  public var timesteps: [Float] { schedule.timesteps }
  public var sigmas: [Float] { schedule.sigmas }
  public var order: Int { 2 }
  public var initialNoiseScale: Float { schedule.initialNoiseScale }

  public func scaleInput(_ sample: Tensor, at step: Int) -> Tensor { schedule.scaleInput(sample, at: step) }

  public func addNoise(_ noise: Tensor, to sample: Tensor, at step: Int) -> Tensor {
    schedule.addNoise(noise, to: sample, at: step)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    // The second prediction of a step is made at its end, whose σ stands at the same index.
    let sigma = schedule.sigmas[step]
    let original = clipping(prediction.original(sample, output, sigma: sigma))
    let derivative = (sample - original) / sigma
    if let start {
      self.start = nil
      let mean = (start.derivative + derivative) / 2
      return StepResult(sample: start.sample + mean * start.sigmaStep, predictedOriginal: original)
    }
    let sigmaStep = schedule.sigmas[step + 1] - sigma
    start = Start(sample: sample, derivative: derivative, sigmaStep: sigmaStep)
    return StepResult(sample: sample + derivative * sigmaStep, predictedOriginal: original)
  }
}
