import LatentDiffusionComponents
import Tensor

/// Teaches a noise predictor: noises latents, lets it predict, follows the loss back, and updates what is trained.
///
/// A value: a copy goes on from the same place. Source: diffusers' `train_text_to_image.py` and `train_text_to_image_lora.py`.
///
/// ```swift
/// var trainer = try NoiseTrainer(unet, training: parameters, by: AdamW(), objective: objective, schedule: schedule)
/// let step = try trainer.step([batch], in: context)
/// print(step.loss)
/// ```
public struct NoiseTrainer: Sendable {
  /// What a step learns from.
  public struct Batch: Sendable {
    /// `[N, h, w, C]`, scaled as the predictor knows them.
    public let latents: Tensor
    /// N rows.
    public let conditioning: Conditioning
    /// Noise and timesteps.
    public let draw: NoiseObjective.Draw

    /// - Parameters:
    ///   - latents: `[N, h, w, C]`.
    ///   - conditioning: N rows.
    ///   - draw: for the latents.
    public init(latents: Tensor, conditioning: Conditioning, draw: NoiseObjective.Draw) {
      (self.latents, self.conditioning, self.draw) = (latents, conditioning, draw)
    }
  }

  /// What a step came to.
  public struct Step: Sendable {
    /// How many steps have been taken with it.
    public let number: Int
    /// The mean loss of the batches, before the update.
    public let loss: Double
    /// Of this step.
    public let learningRate: Float
    /// The norm of all gradients before they were clipped; nil without clipping.
    public let gradientNorm: Double?
  }

  private let predictor: any NoisePredictor
  private let objective: NoiseObjective
  private let schedule: LearningRateSchedule
  private let clipping: GradientClipping?
  private let recomputes: Bool
  private let model = Adaptation.Model()
  /// What is trained, as it is now.
  public private(set) var trained: any Trainable
  /// What the next step depends on beside.
  public private(set) var optimizer: any Optimizer
  /// The steps that have been taken.
  public private(set) var steps = 0

  /// - Parameters:
  ///   - predictor: it must take the timesteps of rows (`timesteps`).
  ///   - trained: of the predictor's parameters.
  ///   - optimizer: with its state, if it goes on.
  ///   - objective: what the predictor learns to say.
  ///   - schedule: the learning rate of each step.
  ///   - clipping: of the gradients' norm; nil for none.
  ///   - recomputes: whether layers are computed again on the way back, which takes less memory and more time.
  ///   - steps: that have been taken already.
  /// - Throws: `TrainingError`.
  public init(
    _ predictor: any NoisePredictor, training trained: any Trainable, by optimizer: any Optimizer, objective: NoiseObjective,
    schedule: LearningRateSchedule, clipping: GradientClipping? = nil, recomputing recomputes: Bool = false, after steps: Int = 0
  ) throws(TrainingError) {
    guard predictor.declaredInputs.contains(where: { $0.name == "timesteps" }) else {
      throw .unusableSetting(
        name: "the noise predictor", found: "one that takes one timestep for all rows", needed: "one that takes those of rows")
    }
    guard !trained.values.isEmpty else { throw .noParameters }
    (self.predictor, self.trained, self.optimizer, self.objective) = (predictor, trained, optimizer, objective)
    (self.schedule, self.clipping, self.recomputes, self.steps) = (schedule, clipping, recomputes, steps)
  }

  /// Takes one step: the gradients of the batches are averaged, and everything that is trained is updated once.
  ///
  /// - Parameter batches: at least one, each in memory at a time of its own.
  /// - Throws: `TrainingError`, `CancellationError`, what the predictor throws. Nothing has changed then.
  public mutating func step(_ batches: [Batch], in context: ExecutionContext) throws -> Step {
    guard var accumulation = try batches.isEmpty ? nil : GradientAccumulation(batches: batches.count) else {
      throw TrainingError.unusableSetting(name: "the number of batches", found: "0", needed: "1 or more")
    }
    var (loss, gradients) = (0.0, [Tensor]())
    for batch in batches {
      let answer = try self.gradients(batch, in: context)
      loss += answer.loss / Double(batches.count)
      gradients = try accumulation(answer.gradients, in: context) ?? gradients
    }
    let norm = try clipping.map { try $0(&gradients, in: context) }
    let rate = schedule.rate(at: steps)
    try optimizer.update(&trained.values, gradients: gradients, learningRate: rate, in: context)
    steps += 1
    return Step(number: steps, loss: loss, learningRate: rate, gradientNorm: norm)
  }

  private func gradients(_ batch: Batch, in context: ExecutionContext) throws -> (loss: Double, gradients: [Tensor]) {
    let example = try objective.example(of: batch.latents, batch.draw)
    var conditioning = batch.conditioning
    conditioning.inputs["timesteps"] = Tensor(example.timesteps.map(Float.init))
    let tape = GradientTape(), placed = try trained.placed(in: model, on: tape, in: context)
    var recording = context.recording(on: tape, recomputing: recomputes)
    recording.adaptation = placed.adaptation
    let answer = try predictor.predict(example.sample, timestep: 0, conditioning: conditioning, in: recording)
    let loss = try objective.loss(of: answer, example, in: context)
    return (loss.value, placed.gradients(from: try tape.gradients(of: answer, times: loss.gradient, in: context)))
  }
}
