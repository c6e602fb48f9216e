import Tensor

/// How noise leaves a latent, step by step. A value: its history is part of it, so a copy is a checkpoint.
///
/// Steps are addressed by index, never by timestep: tables with repeated timesteps exist.
public protocol Scheduler: Sendable {
  /// The timestep given to the predictor at each step; its count is the number of predictions.
  var timesteps: [Float] { get }
  /// The noise in the sample for each unit of signal, σ = √((1 − ᾱ)/ᾱ), at each step, then after the last: at least one more than
  /// `timesteps`. Empty where a scheduler does not know.
  var sigmas: [Float] { get }
  /// Predictions that one step of the user's count takes: 2 for Heun's method. What image-to-image leaves out at the start are whole steps.
  var order: Int { get }
  /// What standard normal noise is multiplied by to start the loop at step 0.
  var initialNoiseScale: Float { get }
  /// The sample as the predictor wants it at a step: of the same shape.
  func scaleInput(_ sample: Tensor, at step: Int) -> Tensor
  /// A clean sample with the noise of a step, for image-to-image: of the same shape, which is the noise's, too.
  func addNoise(_ noise: Tensor, to sample: Tensor, at step: Int) -> Tensor
  /// One step.
  ///
  /// - Parameters:
  ///   - sample: the latents at `step`, unscaled, any shape.
  ///   - prediction: the predictor's answer at `timesteps[step]`, of the same shape.
  ///   - noise: where a stochastic scheduler draws its noise; a deterministic one does not touch it.
  /// - Throws: `SchedulerError` where `step` is out of range.
  mutating func advance(_ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource) throws -> StepResult
}

extension Scheduler {
  public var sigmas: [Float] { [] }
  public var order: Int { 1 }
  public func scaleInput(_ sample: Tensor, at step: Int) -> Tensor { sample }
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
