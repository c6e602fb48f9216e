import LatentDiffusion
import LatentDiffusionTraining

/// What the autoencoder learns from: scenes that are drawn anew for each batch.
struct DrawnPictures: TrainingDataset {
  let batchSize: Int
  /// `[N, h, w, C]`.
  var latents: Shape { BlankModel.latents(batchSize) }

  func batch(
    _ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext
  ) throws -> AutoencoderReconstruction.Batch {
    let pictures = (0..<batchSize).map { _ in Self.picture(drawing: &generator) }
    let images = Tensor(pictures.flatMap { $0.elements.map { 2 * $0 - 1 } }, shape: [batchSize, Scene.height, Scene.width, 3])
    return AutoencoderReconstruction.Batch(images: images, noise: generator.normal(channelsLast: latents))
  }

  /// A scene, or more often a patchwork of four crowds: more colours and edges in one picture teach more.
  private static func picture(drawing generator: inout TorchGenerator) -> Tensor {
    guard generator.uniform(1)[0] < 0.7 else {
      return Scene(.seen, figures: 1 + generator.integers(1, below: 2)[0], drawing: &generator).drawn()
    }
    let crowds = (0..<4).map { _ in Scene(crowd: 4, drawing: &generator).drawn().elements }
    let cut = generator.uniform(2).map { $0 / 2 + 0.25 }, top = Int(cut[0] * Float(Scene.height)), left = Int(cut[1] * Float(Scene.width))
    let values = (0..<Scene.width * Scene.height).flatMap { pixel in
      let part = (pixel / Scene.width >= top ? 2 : 0) + (pixel % Scene.width >= left ? 1 : 0)
      return crowds[part][3 * pixel..<3 * pixel + 3]
    }
    return Tensor(values, shape: [1, Scene.height, Scene.width, 3])
  }
}

/// What the text encoder and the U-Net learn from: the latents of scenes that were drawn and encoded before, and their captions.
struct EncodedScenes: TrainingDataset {
  private let captions: [String]
  /// Of each scene, scaled.
  private let latents: [Tensor]
  private let batchSize: Int
  private let objective: NoiseObjective
  private let conditioner: any TextConditioner
  private let dropout: CaptionDropout

  /// Draws scenes and encodes them.
  init(
    scenes count: Int, for model: DiffusionModel, objective: NoiseObjective, batchSize: Int, drawing generator: inout TorchGenerator,
    in context: ExecutionContext
  ) throws {
    // Two figures are harder than one.
    let scenes = (0..<count).map { Scene(.seen, figures: $0 % 3 == 0 ? 1 : 2, drawing: &generator) }
    captions = scenes.map(\.caption)
    latents = try Self.latents(of: scenes, by: model.pipeline.autoencoder, in: context)
    (self.batchSize, self.objective) = (batchSize, objective)
    conditioner = model.pipeline.conditioner
    dropout = try CaptionDropout(probability: 0.1)
  }

  /// The scaled latents of each scene.
  static func latents(of scenes: [Scene], by autoencoder: any LatentAutoencoder, in context: ExecutionContext) throws -> [Tensor] {
    try stride(from: 0, to: scenes.count, by: 32).flatMap { start in
      let part = Array(scenes[start..<min(start + 32, scenes.count)])
      let encoded = try autoencoder.latentScale * autoencoder.checkedEncode(Scene.batch(part), in: context).mode
      return part.indices.map { encoded.rows($0..<$0 + 1) }
    }
  }

  func batch(_ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext) throws -> NoisePrediction.Batch {
    let chosen = generator.integers(batchSize, below: captions.count)
    let latents = Tensor.concatenated(chosen.map { self.latents[$0] }, axis: 0)
    let draw = try objective.draw(for: latents, with: &generator), dropped = dropout(batchSize, with: &generator)
    let prompts = zip(chosen, dropped).map { Prompt($1 ? "" : captions[$0]) }
    return NoisePrediction.Batch(latents: latents, draw: draw) { [conditioner] recording in
      try conditioner.condition(ConditioningRequest(prompts, size: PixelSize(width: Scene.width, height: Scene.height)), in: recording)
    }
  }
}
