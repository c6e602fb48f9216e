import LatentDiffusionComponents
import Foundation
import Tensor

/// Euler's method on the probability flow.
///
/// Source: Karras, Aittala, Aila and Laine, "Elucidating the design space of diffusion-based generative models", arXiv 2206.00364,
/// algorithm 2 without its correction; diffusers' `EulerDiscreteScheduler`.
public struct EulerDiscreteScheduler: Scheduler {
  /// What the predictor is told (`timestep_type`): a training timestep, or ¼ log σ.
  enum TimestepType: String, CaseIterable {
    case discrete
    case continuous
  }

  public let schedule: NoiseSchedule
  public var putsNoiseBack: Bool { true }
  private let prediction: PredictionType
  private let churn: Churn

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerDiscreteScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.keepsSignal = true
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .euler)
    prediction = try PredictionType(configuration)
    churn = try Churn(configuration)
    let timestepType = try configuration.choice(.timestepType, configuration.timestepType, default: TimestepType.discrete)
    let options = KarrasOptions(
      spacing: try SigmaSpacing(configuration),
      interpolation: try configuration.choice(.interpolationType, configuration.interpolationType, default: .linear),
      final: try FinalSigma(configuration))
    let made = try NoiseSchedule(karras: configuration, steps: steps, table: table, options: options)
    let isContinuous = timestepType == .continuous && prediction == .vPrediction
    schedule = NoiseSchedule(
      timesteps: isContinuous ? zip(made.timesteps, made.levels).map { 0.25 * log($1.sigma) } : made.timesteps, levels: made.levels,
      initialNoiseScale: made.initialNoiseScale)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output)
    let sigma = schedule.levels[step].sigma
    let start = churn.applied(to: sample, sigma: sigma, steps: schedule.levels.count - 1, drawing: &noise)
    // As in diffusers, a velocity is read with the σ before noise was added.
    let original = prediction.original(start.sample, output, sigma: prediction == .vPrediction ? sigma : start.sigma)
    // dx/dσ = (x − x₀)/σ.
    let derivative = (start.sample - original) / start.sigma
    return StepResult(sample: start.sample + derivative * (schedule.levels[step + 1].sigma - start.sigma), predictedOriginal: original)
  }
}
