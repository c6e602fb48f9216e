import Tensor

/// How noise leaves a latent, step by step: a table and a rule for one step. A value: its history is part of it, so a copy is a checkpoint,
/// and what is encoded goes on where it stopped, bit for bit, in another process too.
///
/// Steps are addressed by index, never by timestep: tables with repeated timesteps exist.
public protocol Scheduler: Sendable, Codable {
  /// The timestep of each step, and how much noise a sample has there.
  var schedule: NoiseSchedule { get }
  /// Predictions that one step of the user's count takes: 2 for Heun's method. The last steps may take fewer. What image-to-image leaves out at the
  /// start are whole steps.
  var order: Int { get }
  /// Whether predictions have twice the sample's channels, of which the second half says the variance of the noise that a step adds (`variance_type`
  /// `learned`). False without an implementation: that half is left out then, where a network predicts it.
  var takesVariance: Bool { get }
  /// Whether a step looks at one prediction alone, and goes to α′ x₀ + σ′ ε with its clean sample x₀ and its noise ε, or to less noise and some that is drawn.
  /// Then ε may come from another prediction than x₀ (CFG++). False without an implementation.
  var putsNoiseBack: Bool { get }
  /// α′: what the clean sample is multiplied by in the result of a step. Without an implementation, the next level's α.
  func signal(after step: Int) -> Float
  /// One step.
  ///
  /// - Parameters:
  ///   - sample: the latents at `step`, unscaled, any shape.
  ///   - prediction: the predictor's answer at `timesteps[step]`, of the same shape, or with twice the channels where `takesVariance`.
  ///   - noise: where a stochastic scheduler draws its noise; a deterministic one does not touch it.
  /// - Throws: `SchedulerError` where `step` is out of range.
  mutating func advance(_ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource) throws -> StepResult
}

extension Scheduler {
  public var order: Int { 1 }
  public var takesVariance: Bool { false }
  public var putsNoiseBack: Bool { false }
  public func signal(after step: Int) -> Float { schedule.levels[step + 1].alpha }
  /// The timestep given to the predictor at each step; its count is the number of predictions.
  public var timesteps: [Float] { schedule.timesteps }
  /// The noise in the sample for each unit of signal, σ/α, at each step, then after the last.
  public var sigmas: [Float] { schedule.levels.map(\.ratio) }
  /// What standard normal noise is multiplied by to start the loop at step 0.
  public var initialNoiseScale: Float { schedule.initialNoiseScale }

  /// The sample as the predictor wants it at a step: of the same shape.
  public func scaleInput(_ sample: Tensor, at step: Int) -> Tensor {
    let divisor = schedule.levels[step].inputDivisor
    return divisor == 1 ? sample : sample / divisor
  }

  /// A clean sample with the noise of a step, α x₀ + σ ε, for image-to-image: of the same shape, which is the noise's, too.
  public func addNoise(_ noise: Tensor, to sample: Tensor, at step: Int) -> Tensor {
    let level = schedule.levels[step]
    return level.alpha * sample + level.sigma * noise
  }
}

/// What a step gives.
public struct StepResult: Sendable {
  /// The latents at the next step, in the shape of the sample.
  public let sample: Tensor
  /// The clean latents as they look from here, in the same shape, for previews and for schedulers whose last step returns them.
  public let predictedOriginal: Tensor?

  /// - Parameters:
  ///   - sample: the latents at the next step.
  ///   - predictedOriginal: the clean latents as they look from here, of the same shape, where the scheduler knows them.
  public init(sample: Tensor, predictedOriginal: Tensor? = nil) {
    self.sample = sample
    self.predictedOriginal = predictedOriginal
  }
}
