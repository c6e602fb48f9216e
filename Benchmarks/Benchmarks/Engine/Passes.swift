import EmojiModel
import LatentDiffusion

/// The parts of the embedded model, and a whole picture.
func passes() {
  measure("emoji, text encoder") { context -> Work in
    let conditioner = try emoji(in: context).conditioner
    return { try conditioner.condition(ConditioningRequest(["red apple"], size: PixelSize(width: 64, height: 64)), in: $0) }
  }
  measure("emoji, U-Net, batch 2") { context -> Work in
    let pipeline = try emoji(in: context)
    let conditioning = try pipeline.conditioner.condition(
      ConditioningRequest(["red apple", ""], size: PixelSize(width: 64, height: 64)), in: context)
    let (predictor, latents) = (pipeline.predictor, try noise(latentShape(pipeline, batch: 2)))
    return { try predictor.predict(latents, timestep: 501, conditioning: conditioning, in: $0) }
  }
  measure("emoji, VAE decode") { context -> Work in
    let pipeline = try emoji(in: context)
    let (autoencoder, latents) = (pipeline.autoencoder, try noise(latentShape(pipeline, batch: 1)))
    return { try autoencoder.decode(latents, in: $0) }
  }
  measure("emoji, picture") { context -> AsyncWork in
    let model = try StableDiffusion.load(from: EmojiModel.folder(), in: context)
    return { try await model.pipeline.images(for: model.request("red apple", seed: 0), in: $0) }
  }
}

private func emoji(in context: ExecutionContext) throws -> DiffusionPipeline {
  try StableDiffusion.load(from: EmojiModel.folder(), in: context).pipeline
}

private func latentShape(_ pipeline: DiffusionPipeline, batch: Int) throws -> Shape {
  try pipeline.latentShape(for: GenerationRequest(prompts: Array(repeating: "", count: batch)))
}
