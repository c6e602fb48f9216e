import LatentDiffusionComponents
import Tensor

/// The loop from noise to latents, the same for every task: tasks differ in what it starts with.
///
/// A value: a copy is a checkpoint.
struct DenoisingLoop: Sendable {
  let predictor: any NoisePredictor
  /// `guidance.rows · N` rows.
  let conditioning: Conditioning
  let guidance: Guidance
  /// `[guidance.rows · N, h, w, inputChannels - C]`: what the predictor sees beside the latents.
  let appended: Tensor?
  /// What is put back after every step.
  let restoration: Restoration?
  let firstStep: Int

  var scheduler: any Scheduler
  var noise: any NoiseSource
  /// What the predictor's passes leave for one another.
  var memory: PassMemory
  /// `[N, h, w, C]`.
  var latents: Tensor
  /// The next one, an index into the scheduler's timesteps.
  var step: Int

  var isFinished: Bool { step >= scheduler.timesteps.count }

  /// Runs one step.
  /// - Returns: the clean latents as they look from here, where the scheduler knows them.
  mutating func advance(in context: ExecutionContext) throws -> Tensor? {
    try context.checkCancellation()
    let prediction = try guidance.combined(predict(in: context))
    let result = try scheduler.advance(latents, prediction: prediction, at: step, noise: &noise)
    latents = restoration?.applied(to: result.sample, scheduler: scheduler, after: step) ?? result.sample
    guard latents.isFinite else { throw GenerationError.diverged(step: step - firstStep) }
    step += 1
    return result.predictedOriginal
  }

  private mutating func predict(in context: ExecutionContext) throws -> Tensor {
    var input = scheduler.scaleInput(latents, at: step).repeated(guidance.rows)
    if let appended { input = Tensor.concatenated([input, appended], axis: -1) }
    let prediction = try predictor.predict(
      input, timestep: scheduler.timesteps[step], conditioning: conditioning, memory: &memory, in: context)
    let expected = Shape([input.shape[0]] + latents.shape.dimensions.dropFirst())
    guard prediction.shape == expected else {
      throw ComponentError.unexpectedShape(
        component: "The pipeline", argument: "predictions", expected: expected.description, found: prediction.shape)
    }
    return prediction
  }
}

/// Keeps the latents outside a mask to those of a picture, for predictors that know nothing of masks.
struct Restoration: Sendable {
  /// `[N, h, w, C]`, 0 or 1: where 1, the loop has its way.
  let mask: Tensor
  /// `[N, h, w, C]`: the picture.
  let original: Tensor
  /// `[N, h, w, C]`: the noise that the loop started with.
  let noise: Tensor

  /// The latents as they enter the next step: outside the mask, the picture with that step's noise; after the last, without any.
  func applied(to latents: Tensor, scheduler: any Scheduler, after step: Int) -> Tensor {
    let isLast = step + 1 >= scheduler.timesteps.count
    let outside = isLast ? original : scheduler.addNoise(noise, to: original, at: step + 1)
    return mask.map { 1 - $0 } * outside + mask * latents
  }
}
