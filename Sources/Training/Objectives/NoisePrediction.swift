import LatentDiffusionComponents
import Tensor

/// Teaches a noise predictor: latents get noise, and the predictor says what it was.
///
/// Source: diffusers' `train_text_to_image.py` and `train_text_to_image_lora.py`.
public struct NoisePrediction: TrainingObjective {
  /// What a step learns from.
  public struct Batch: Sendable {
    /// `[N, h, w, C]`, scaled as the predictor knows them.
    public let latents: Tensor
    /// Noise and timesteps.
    public let draw: NoiseObjective.Draw
    /// Makes N rows. It runs in the context that records, so that a text encoder can learn, too.
    public let conditioning: @Sendable (ExecutionContext) throws -> Conditioning

    /// - Parameters:
    ///   - latents: `[N, h, w, C]`, scaled as the predictor knows them.
    ///   - draw: for the latents.
    ///   - conditioning: makes N rows.
    public init(
      latents: Tensor, draw: NoiseObjective.Draw, conditioning: @escaping @Sendable (ExecutionContext) throws -> Conditioning
    ) {
      (self.latents, self.draw, self.conditioning) = (latents, draw, conditioning)
    }
  }

  private let predictor: any NoisePredictor
  private let objective: NoiseObjective

  /// - Parameters:
  ///   - predictor: it must take the timesteps of rows (`timesteps`).
  ///   - objective: what it learns to say.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(by predictor: any NoisePredictor, objective: NoiseObjective) throws(TrainingError) {
    guard predictor.declaredInputs.contains(where: { $0.name == "timesteps" }) else {
      throw .unusableSetting(
        name: "the noise predictor", found: "one that takes one timestep for all rows", needed: "one that takes those of rows")
    }
    (self.predictor, self.objective) = (predictor, objective)
  }

  public func answer(to batch: Batch, in recording: ExecutionContext) throws -> TrainingAnswer {
    let example = try objective.example(of: batch.latents, batch.draw)
    var conditioning = try batch.conditioning(recording)
    conditioning.inputs["timesteps"] = Tensor(example.timesteps.map(Float.init))
    let prediction = try predictor.predict(example.sample, timestep: 0, conditioning: conditioning, in: recording)
    let loss = try objective.loss(of: prediction, example, in: recording)
    return TrainingAnswer(loss: loss.value, gradients: [(prediction, loss.gradient)])
  }
}
