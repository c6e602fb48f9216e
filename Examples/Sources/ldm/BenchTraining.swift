import LatentDiffusionTraining

/// Passes that train: a whole step, from a batch to updated parameters.
extension Bench {
  /// A run of as many steps as are taken, of which each call takes the next. Its data are noise.
  func training(in context: ExecutionContext) async throws -> Work {
    let loaded = try await model.load(in: context), size = try size().size
    if pass == .trainAutoencoder { return try reconstruction(of: loaded, size, in: context) }
    let conditioning = try await context.run { [batch] in
      let prompts = Array(repeating: Self.prompt, count: batch)
      return try loaded.pipeline.conditioner.condition(ConditioningRequest(prompts, size: size), in: $0)
    }
    let objective = try loaded.noiseObjective(), predictor = loaded.pipeline.predictor
    let shape = try latentShape(
      size, scale: loaded.pipeline.autoencoder.spatialScale, multiple: predictor.sideMultiple, channels: predictor.inputChannels)
    return try steps(
      NoisePrediction(by: predictor, objective: objective),
      on: NoisyLatents(latents: noise(shape), objective: objective, conditioning: conditioning), training: "unet", trained(of: loaded),
      in: context)
  }

  /// The U-Net as a whole, or low-rank changes of its attention as `ldm train lora` makes them without options.
  private func trained(of model: StableDiffusion) throws -> any Trainable {
    guard pass == .trainLora else { return try model.trainedParameters(of: "unet") }
    var generator = TorchGenerator(seed: 0)
    return TrainedLowRank(LowRankTargets.attention.labels(among: try model.parameters(of: "unet")), rank: 16, with: &generator)
  }

  private func reconstruction(of model: StableDiffusion, _ size: PixelSize, in context: ExecutionContext) throws -> Work {
    // Without tiles, since a gradient is of a whole picture.
    let given = model.pipeline.autoencoder, autoencoder = (given as? TiledAutoencoder)?.base ?? given
    let shape = try latentShape(size, scale: autoencoder.spatialScale, multiple: 1, channels: autoencoder.latentChannels)
    let dataset = NoisyPictures(images: noise([batch, size.height, size.width, 3]).clamped(to: -1...1), latents: shape)
    return try steps(
      AutoencoderReconstruction(of: autoencoder), on: dataset, training: "vae", model.trainedParameters(of: "vae"), in: context)
  }

  private func steps<Objective: TrainingObjective>(
    _ objective: Objective, on dataset: any TrainingDataset<Objective.Batch>, training component: String, _ trained: any Trainable,
    in context: ExecutionContext
  ) throws -> Work {
    var settings = Trainer<Objective>.Settings()
    settings.recomputes = recompute
    let schedule = try LearningRateSchedule(rate: 1e-4, steps: repeats + 1)
    let trainer = try Trainer(
      objective, on: dataset, training: TrainedComponents([(component, trained)]), by: AdamW(), schedule: schedule, settings: settings,
      seed: 0)
    let run = trainer.steps(in: context)
    return { _ in _ = try await run.next() }
  }

  private func latentShape(_ size: PixelSize, scale: Int, multiple: Int, channels: Int) throws -> Shape {
    guard size.width.isMultiple(of: scale * multiple), size.height.isMultiple(of: scale * multiple) else {
      throw GenerationError.indivisibleSize(width: size.width, height: size.height, multiple: scale * multiple)
    }
    return [batch, size.height / scale, size.width / scale, channels]
  }
}

/// The same noise every time.
private func noise(_ shape: Shape) -> Tensor {
  var generator = TorchGenerator(seed: 0)
  return generator.normal(channelsLast: shape)
}

/// The same latents and the same text in each batch, and other noise.
private struct NoisyLatents: TrainingDataset {
  /// `[N, h, w, C]`.
  let latents: Tensor
  let objective: NoiseObjective
  /// N rows.
  let conditioning: Conditioning

  func batch(_ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext) throws -> NoisePrediction.Batch {
    let draw = try objective.draw(for: latents, with: &generator)
    return NoisePrediction.Batch(latents: latents, draw: draw) { [conditioning] _ in conditioning }
  }
}

/// The same pictures in each batch, and other noise for their latents.
private struct NoisyPictures: TrainingDataset {
  /// `[N, H, W, 3]`.
  let images: Tensor
  /// `[N, h, w, C]`.
  let latents: Shape

  func batch(_ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext) -> AutoencoderReconstruction.Batch {
    AutoencoderReconstruction.Batch(images: images, noise: generator.normal(channelsLast: latents))
  }
}
