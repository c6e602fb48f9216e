import LatentDiffusionComponents
import Schedulers
import Tensor

/// What a noise predictor learns: to say from a noisy sample x = α x₀ + σ ε what the noise was, or the clean sample, or the velocity.
///
/// `draw` draws noise and timesteps, `example` makes what the predictor sees and what it should say, and `loss` compares its answer with that.
///
/// Source: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", arXiv 2006.11239; diffusers' `train_text_to_image.py`, in whose order
/// numbers are drawn.
public struct NoiseObjective: Sendable {
  /// What is varied.
  public struct Settings: Sendable, Equatable {
    /// How much the loss of a timestep counts.
    public var weighting = LossWeighting.uniform
    /// The loss of an element.
    public var loss = ElementLoss.meanSquared
    /// How much noise is added that is the same for all pixels of a channel, so that a model learns to change the brightness of a whole picture
    /// (`noise_offset`, about 0.05); 0 for none.
    public var offset: Float = 0
    /// How much more noise the sample has than the target says, which makes a model robust (`input_perturbation`, about 0.1;
    /// Ning and others, arXiv 2301.11706); 0 for none.
    public var perturbation: Float = 0

    /// Those of diffusers' script without options.
    public init() {}
  }

  /// What is drawn for a batch.
  public struct Draw: Sendable {
    /// `[N, h, w, C]`, ε: what is to be predicted.
    public let noise: Tensor
    /// `[N, h, w, C]`: what the sample gets; ε, unless it is perturbed.
    public let addedNoise: Tensor
    /// A training timestep for each row.
    public let timesteps: [Int]

    /// - Parameters:
    ///   - noise: `[N, h, w, C]`.
    ///   - addedNoise: what the sample gets in place of it; nil for the same.
    ///   - timesteps: for each of the N rows.
    public init(noise: Tensor, addedNoise: Tensor? = nil, timesteps: [Int]) {
      (self.noise, self.addedNoise, self.timesteps) = (noise, addedNoise ?? noise, timesteps)
    }
  }

  /// What a predictor sees and should say.
  public struct Example: Sendable {
    /// `[N, h, w, C]`, x.
    public let sample: Tensor
    /// A training timestep for each row.
    public let timesteps: [Int]
    /// `[N, h, w, C]`.
    public let target: Tensor
    /// How much each row's loss counts.
    public let weights: [Double]
  }

  /// How much signal and noise a sample has at each training timestep.
  public let levels: [NoiseLevel]
  /// What is predicted.
  public let prediction: PredictionType
  /// What is varied.
  public let settings: Settings

  /// - Parameters:
  ///   - levels: for each training timestep.
  ///   - prediction: what is predicted.
  ///   - settings: what is varied.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(levels: [NoiseLevel], prediction: PredictionType, settings: Settings = Settings()) throws(TrainingError) {
    guard !levels.isEmpty, levels.allSatisfy({ $0.alpha >= 0 && $0.sigma > 0 && $0.alpha.isFinite && $0.sigma.isFinite }) else {
      throw .unusableSetting(name: "the noise table", found: "empty or without noise somewhere", needed: "some noise at every timestep")
    }
    try TrainingError.check("the noise offset", Double(settings.offset), "0 or more") { $0 >= 0 }
    try TrainingError.check("the input perturbation", Double(settings.perturbation), "0 or more") { $0 >= 0 }
    try settings.loss.check()
    try settings.weighting.check(levels, prediction)
    (self.levels, self.prediction, self.settings) = (levels, prediction, settings)
  }

  /// The objective of the model that a scheduler's configuration is for.
  /// - Throws: `SchedulerError`, `TrainingError.unusableSetting`.
  public init(_ configuration: SchedulerConfiguration, settings: Settings = Settings()) throws {
    try self.init(levels: configuration.trainingLevels(), prediction: PredictionType(configuration), settings: settings)
  }

  /// Draws noise, then its offset, then the perturbation, then timesteps, each of them equally often.
  ///
  /// - Parameter latents: `[N, h, w, C]`; only their shape counts.
  /// - Throws: `TrainingError.unusableSetting` where these are no latents.
  public func draw(for latents: Tensor, with generator: inout TorchGenerator) throws(TrainingError) -> Draw {
    let shape = latents.shape
    guard shape.rank == 4, shape.count > 0 else {
      throw .unusableSetting(name: "the shape of the latents", found: "\(shape)", needed: "[N, h, w, C]")
    }
    var noise = generator.normal(channelsLast: shape)
    if settings.offset > 0 {
      let offsets = generator.normal(shape[0] * shape[3])
      let rows = (0..<shape[0]).map { row in
        let offset = Tensor(Array(offsets[row * shape[3]..<(row + 1) * shape[3]]), shape: [1, shape[3]])
        return offset.repeated(shape[1] * shape[2])
      }
      noise = noise + settings.offset * Tensor.concatenated(rows, axis: 0).reshaped(shape)
    }
    let added = settings.perturbation > 0 ? noise + settings.perturbation * generator.normal(channelsLast: shape) : nil
    return Draw(noise: noise, addedNoise: added, timesteps: generator.integers(shape[0], below: levels.count))
  }

  /// Makes what the predictor sees and what it should say.
  ///
  /// - Parameters:
  ///   - latents: `[N, h, w, C]`, x₀, scaled as the predictor knows them.
  ///   - draw: of the same shape.
  /// - Throws: `TrainingError`.
  public func example(of latents: Tensor, _ draw: Draw) throws(TrainingError) -> Example {
    let count = latents.shape.dimensions.first ?? 0
    try TrainingError.check("The noise", draw.noise.shape, latents.shape)
    try TrainingError.check("The added noise", draw.addedNoise.shape, latents.shape)
    guard count > 0, draw.timesteps.count == count else {
      throw .unusableSetting(
        name: "the number of timesteps", found: "\(draw.timesteps.count)", needed: "\(max(count, 1)), one for each row")
    }
    for timestep in draw.timesteps where !levels.indices.contains(timestep) {
      throw .timestepOutOfRange(timestep, count: levels.count)
    }
    let rows = draw.timesteps.enumerated().map { row, timestep in
      let level = levels[timestep], original = latents.rows(row..<row + 1)
      return (
        sample: level.alpha * original + level.sigma * draw.addedNoise.rows(row..<row + 1),
        target: prediction.target(original, noise: draw.noise.rows(row..<row + 1), alpha: level.alpha, sigma: level.sigma),
        weight: settings.weighting(level, prediction)
      )
    }
    return Example(
      sample: .concatenated(rows.map(\.sample), axis: 0), timesteps: draw.timesteps, target: .concatenated(rows.map(\.target), axis: 0),
      weights: rows.map(\.weight))
  }

  /// The mean of the rows' losses, each the mean of its elements times the row's weight.
  ///
  /// - Parameters:
  ///   - answer: `[N, h, w, C]`, what the predictor says.
  ///   - example: what it should say.
  /// - Returns: the loss, and its gradient with respect to the answer.
  /// - Throws: `TrainingError`.
  public func loss(of answer: Tensor, _ example: Example, in context: ExecutionContext) throws(TrainingError) -> Loss {
    try TrainingError.check("The prediction", answer.shape, example.target.shape)
    let share = 1 / Double(answer.count)
    let rows = example.weights.enumerated().map { row, weight in
      let (answer, target) = (answer.rows(row..<row + 1), example.target.rows(row..<row + 1))
      return (
        value: weight * share * settings.loss.sum(answer, target, in: context),
        gradient: settings.loss.gradient(answer, target, scale: weight * share, in: context)
      )
    }
    return try Loss(rows.reduce(0) { $0 + $1.value }, gradient: .concatenated(rows.map(\.gradient), axis: 0))
  }
}
