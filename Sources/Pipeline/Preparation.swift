import LatentDiffusionComponents
import Tensor

/// From a plan to a loop that is ready to run, and from latents to pictures. The order in which random numbers are drawn is part of
/// what a seed means: it is that of diffusers' pipelines.
extension Plan {
  /// Encodes the prompts and the picture, and draws the noise to start from.
  func loop(in context: ExecutionContext) throws -> DenoisingLoop {
    var noise = request.generator(request.seed)
    let guidance = guidance
    let start = try start(drawing: &noise, in: context)
    return DenoisingLoop(
      predictor: pipeline.predictor, conditioning: try conditioning(guidance, in: context), guidance: guidance,
      appended: start.appended, restoration: start.restoration, firstStep: schedule.firstStep, scheduler: schedule.scheduler,
      noise: noise, memory: PassMemory(request.shortcuts, seed: request.seed), latents: start.latents, step: schedule.firstStep)
  }

  var guidance: Guidance {
    let scale = Float(request.guidance)
    guard request.guidance > 1, !pipeline.predictor.embedsGuidance else { return .none }
    guard case .edit(_, let imageGuidance) = request.task else { return .text(scale: scale, rescale: Float(request.guidanceRescale)) }
    return imageGuidance >= 1 ? .textAndImage(text: scale, image: Float(imageGuidance)) : .none
  }

  private func conditioning(_ guidance: Guidance, in context: ExecutionContext) throws -> Conditioning {
    phase(.encodingPrompts)
    func encoded(_ prompts: [Prompt], times: Int) throws -> Conditioning {
      let result = try pipeline.conditioner.condition(prompts, in: context)
      guard result.hiddenStates.shape.rank > 0, result.hiddenStates.shape[0] == prompts.count else {
        throw ComponentError.unexpectedShape(
          component: "The pipeline", argument: "hidden states", expected: "[\(prompts.count), …]", found: result.hiddenStates.shape)
      }
      return result.repeated(times)
    }
    var conditioning = try guidance.conditioning(prompt: encoded(request.prompts, times: request.imagesPerPrompt)) {
      // One negative prompt for all is encoded once.
      let negative = request.negativePrompts.isEmpty ? [""] : request.negativePrompts
      return try encoded(negative, times: count / negative.count)
    }
    if pipeline.predictor.embedsGuidance { conditioning.guidance = Float(request.guidance - 1) }
    return conditioning
  }

  /// What a task brings to the loop.
  private struct Start {
    var latents: Tensor
    var appended: Tensor?
    var restoration: Restoration?
  }

  private func start(drawing noise: inout any NoiseSource, in context: ExecutionContext) throws -> Start {
    func drawn() -> Tensor { request.noise ?? noise.normal(channelsLast: latentShape) }
    switch request.task {
    case .textToImage:
      return Start(latents: drawn() * schedule.scheduler.initialNoiseScale)
    case .imageToImage(.latents(let latents), _):
      return Start(latents: noised(latents.repeated(count / latents.shape[0]), with: drawn()))
    case .imageToImage(.pixels(let image), _):
      let original = try encoded(fitted(image).centered, drawing: &noise, in: context)
      return Start(latents: noised(original, with: drawn()))
    case .edit(let image, _):
      return Start(
        latents: drawn() * schedule.scheduler.initialNoiseScale,
        appended: try beside(posterior(of: fitted(image).centered, in: context).mode))
    case .inpaint(let inpainting):
      return try start(inpainting, drawing: &noise, in: context)
    }
  }

  private func start(_ task: Inpainting, drawing noise: inout any NoiseSource, in context: ExecutionContext) throws -> Start {
    let image = fitted(task.image)
    let mask = fitted(task.mask(for: request.resizeMode)).binarized()
    let latentMask = mask.sampled(every: pipeline.autoencoder.spatialScale).repeated(count / mask.shape[0])
    let blends = pipeline.predictor.inputChannels == latentShape.columns
    // At full strength the picture below the mask is not looked at, except for blending.
    let original = blends || task.strength < 1 ? try encoded(image.centered, drawing: &noise, in: context) : nil
    let drawn = request.noise ?? noise.normal(channelsLast: latentShape)
    let latents =
      if let original, task.strength < 1 { noised(original, with: drawn) } else { drawn * schedule.scheduler.initialNoiseScale }
    if blends, let original {
      // diffusers encodes the masked picture here too, for nothing; only the numbers drawn for it matter to what follows.
      _ = noise.normal(channelsLast: Shape([image.shape[0]] + latentShape.dimensions.dropFirst()))
      return Start(
        latents: latents,
        restoration: Restoration(mask: latentMask.channelRepeated(latentShape.columns), original: original, noise: drawn))
    }
    let kept = mask.map { 1 - $0 }.channelRepeated(3).repeated(image.shape[0] / mask.shape[0])
    let masked = try encoded(image.centered * kept, drawing: &noise, in: context)
    return Start(
      latents: latents, appended: Tensor.concatenated([latentMask, masked], axis: -1).repeated(guidance.rows))
  }

  /// Encodes -1…1, draws from the posterior, and repeats for the pictures of the request.
  private func encoded(
    _ centered: Tensor, drawing noise: inout any NoiseSource, in context: ExecutionContext
  ) throws -> Tensor {
    let posterior = try posterior(of: centered, in: context)
    let sample = posterior.sample(noise: noise.normal(channelsLast: posterior.mean.shape))
    return pipeline.autoencoder.scaled(sample).repeated(count / centered.shape[0])
  }

  private func posterior(of centered: Tensor, in context: ExecutionContext) throws -> DiagonalGaussian {
    var context = context
    phase(.encodingPicture(done: 0, count: 1))
    context.progress = { [phase] in phase(.encodingPicture(done: $0, count: $1)) }
    return try pipeline.posterior(of: centered, in: context)
  }

  private func noised(_ original: Tensor, with noise: Tensor) -> Tensor {
    schedule.scheduler.addNoise(noise, to: original, at: schedule.firstStep)
  }

  /// The picture in the size of the model's input.
  private func fitted(_ image: Tensor) -> Tensor {
    let image = image.resized(to: outputSize, mode: request.resizeMode)
    guard size != outputSize else { return image }
    return image.extended(left: 0, right: size.width - outputSize.width, top: 0, bottom: size.height - outputSize.height)
  }

  /// What the predictor sees beside the latents when it edits: the picture, in all rows but the one without it.
  private func beside(_ picture: Tensor) -> Tensor {
    let picture = picture.repeated(count / picture.shape[0])
    guard case .textAndImage = guidance else { return picture.repeated(guidance.rows) }
    return Tensor.concatenated([picture, picture, Tensor(shape: picture.shape)], axis: 0)
  }

  /// Decodes one of the latents.
  func image(_ index: Int, of latents: Tensor, in context: ExecutionContext) throws -> GeneratedImage {
    let latents = latents.rows(index..<index + 1)
    var context = context
    phase(.decoding(done: index, count: count))
    context.progress = { [phase, count] in phase(.decoding(done: index * $1 + $0, count: count * $1)) }
    let decoded = try pipeline.autoencoder.image(of: latents, in: context)
      .cropped(height: outputSize.height, width: outputSize.width)
    return GeneratedImage(
      index: index, prompt: request.prompts[index / request.imagesPerPrompt], image: keeping(decoded, index), latents: latents,
      truncations: truncations)
  }

  /// The decoded picture with the original's pixels outside the mask, where the task keeps them.
  private func keeping(_ decoded: Tensor, _ index: Int) -> Tensor {
    guard case .inpaint(let inpainting) = request.task, inpainting.keepsPixelsOutsideMask else { return decoded }
    func original(_ tensor: Tensor) -> Tensor {
      let row = index % tensor.shape[0]
      return tensor.rows(row..<row + 1).resized(to: outputSize, mode: request.resizeMode)
    }
    let mask = original(inpainting.mask(for: request.resizeMode)).binarized().channelRepeated(3)
    // A product with 1 and a sum with 0 change nothing: the kept pixels come back bit by bit.
    return mask * decoded + mask.map { 1 - $0 } * original(inpainting.image)
  }
}

extension Inpainting {
  /// The mask, in the picture's size where only that says what is cut off or added.
  fileprivate func mask(for mode: ResizeMode) -> Tensor {
    mode == .stretch ? mask : mask.resampled(height: image.shape[1], width: image.shape[2])
  }
}

extension Tensor {
  /// 0…1 to -1…1, as the autoencoder takes pictures.
  var centered: Tensor { map { 2 * $0 - 1 } }
}

extension LatentAutoencoder {
  /// Latents as the noise predictor takes them.
  func scaled(_ latents: Tensor) -> Tensor { latentScale * (latents - latentShift) }

  /// - Parameter latents: `[N, h, w, C]`, scaled.
  /// - Returns: `[N, H, W, 3]`, 0…1.
  func image(of latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    let decoded = try decode(latents / latentScale + latentShift, in: context)
    let expected: Shape = [latents.shape[0], latents.shape[1] * spatialScale, latents.shape[2] * spatialScale, 3]
    guard decoded.shape == expected else {
      throw ComponentError.unexpectedShape(
        component: "The pipeline", argument: "decoded pictures", expected: expected.description, found: decoded.shape)
    }
    guard decoded.isFinite else { throw GenerationError.notFinite(name: "The decoded picture") }
    return (decoded * 0.5 + 0.5).clamped(to: 0...1)
  }
}
