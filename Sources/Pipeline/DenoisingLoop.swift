import LatentDiffusionComponents
import Tensor

/// The loop from noise to latents, the same for every task: tasks differ in what it starts with.
///
/// A value: a copy is a checkpoint.
struct DenoisingLoop: Sendable {
  let predictor: any NoisePredictor
  /// What it is asked in each step.
  let passes: GuidedPasses
  /// `[N, h, w, inputChannels - C]`: what the predictor sees beside the latents.
  let beside: Tensor?
  /// What is put back after every step.
  let restoration: Restoration?
  let firstStep: Int
  /// The step before which it ends.
  let endStep: Int

  var guidance: any Guidance
  var scheduler: any Scheduler
  var noise: any NoiseSource
  /// What the predictor's passes leave for those of later steps, for each pass of a step.
  var memories: [PassMemory]
  /// `[N, h, w, C]`, of clips `[N, F, h, w, C]`.
  var latents: Tensor
  /// The next one, an index into the scheduler's timesteps.
  var step: Int

  var isFinished: Bool { step >= endStep }

  /// Whether another guidance asks for the same rows in the steps from one on: passes are made for those.
  func asksTheSame(as other: any Guidance, from step: Int) -> Bool {
    let count = endStep - firstStep
    return (step - firstStep..<count).allSatisfy {
      guidance.rows(at: $0, of: count) == other.rows(at: $0, of: count)
        && guidance.renoisingRow(at: $0, of: count) == other.renoisingRow(at: $0, of: count)
    }
  }

  /// Runs one step.
  /// - Returns: the clean latents as they look from here, where the scheduler knows them.
  mutating func advance(in context: ExecutionContext) throws -> Tensor? {
    try context.checkCancellation()
    let predictions = try predict(in: context)
    let sigmas = scheduler.sigmas
    let place = GuidanceStep(
      index: step - firstStep, count: endStep - firstStep, timestep: scheduler.timesteps[step],
      sigma: step < sigmas.count ? sigmas[step] : nil, latents: latents)
    let prediction = guidance.combined(predictions, at: place)
    let renoising = guidance.renoisingRow(at: place.index, of: place.count).map { predictions[$0] }
    let shape = latents.shape
    let result = try advanced(by: prediction, puttingBack: renoising)
    let sample = result.sample.reshaped(shape)
    latents = restoration?.applied(to: sample, scheduler: scheduler, after: step, isLast: step + 1 >= endStep) ?? sample
    guard latents.isFinite else { throw GenerationError.diverged(step: step - firstStep) }
    step += 1
    return result.predictedOriginal?.reshaped(shape)
  }

  /// A step of the scheduler.
  ///
  /// Where the noise comes from another prediction than the clean sample x₀, the step of that other one goes to its own sample, and there x₀ is exchanged:
  /// α′ x₀ + σ′ ε.
  private mutating func advanced(by prediction: Tensor, puttingBack other: Tensor?) throws -> StepResult {
    let stepsByFrame = predictor.clip?.stepsByFrame ?? false, before = (scheduler: scheduler, noise: noise)
    func stepped(_ tensor: Tensor) -> Tensor { stepsByFrame ? tensor.framesAsPictures : tensor }
    let result = try scheduler.advance(stepped(latents), prediction: stepped(prediction), at: step, noise: &noise)
    guard let other, let original = result.predictedOriginal else { return result }
    (scheduler, noise) = before
    let step = try scheduler.advance(stepped(latents), prediction: stepped(other), at: self.step, noise: &noise)
    guard let replaced = step.predictedOriginal else { return result }
    return StepResult(
      sample: step.sample + scheduler.signal(after: self.step) * (original - replaced), predictedOriginal: original)
  }

  /// `[N, h, w, C]` for each row of the guidance in this step, with twice the channels where the scheduler takes variances.
  private mutating func predict(in context: ExecutionContext) throws -> [Tensor] {
    let count = latents.shape[0], stage = passes.stage(at: step - firstStep)
    var predictions = Array(repeating: latents, count: stage.count)
    for index in stage.passes {
      let pass = passes.passes[index]
      memories[index].step = step - firstStep
      let seen = try pass.rows.map { $0.isDegraded ? try degraded($0, in: stage, knowing: predictions) : latents }
      let prediction = try pass.predictor.predict(
        input(pass.rows, of: seen), timestep: scheduler.timesteps[step], conditioning: pass.conditioning(at: step),
        memory: &memories[index], in: context)
      let channels = latents.shape.columns, places = latents.shape.dimensions.dropFirst().dropLast()
      let expected = Shape([pass.rows.count * count] + places + [pass.predictor.outputChannels])
      guard prediction.shape == expected else {
        throw ComponentError.unexpectedShape(
          component: "The pipeline", argument: "predictions", expected: expected.description, found: prediction.shape)
      }
      // What a network predicts of the variance is left out where the scheduler does not take it.
      let isWhole = scheduler.takesVariance || prediction.shape.columns == channels
      let taken = isWhole ? prediction : prediction.channels(0..<channels)
      for (row, place) in pass.places.enumerated() { predictions[place] = taken.rows(row * count..<(row + 1) * count) }
    }
    return stage.combined(predictions)
  }

  /// The latents that rows see and what is beside them: one for each picture, or one for each row where rows see different things.
  private func input(_ rows: [GuidanceRow], of latents: [Tensor]) -> Tensor {
    func seen(_ row: Int) -> Tensor {
      let scaled = scheduler.scaleInput(latents[row], at: step)
      guard let beside else { return scaled }
      return Tensor.concatenated([scaled, rows[row].seesPicture ? beside : Tensor(shape: beside.shape)], axis: -1)
    }
    let isOne = latents.allSatisfy { $0.isIdentical(to: latents[0]) } && (beside == nil || Set(rows.map(\.seesPicture)).count == 1)
    return isOne ? seen(0) : Tensor.concatenated(rows.indices.map(seen), axis: 0)
  }
}
