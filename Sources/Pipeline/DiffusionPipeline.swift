import LatentDiffusionComponents
import LatentDiffusionFiles
import Schedulers
import Tensor

/// Latent diffusion out of three components and a scheduler, for any `GenerationTask`.
///
/// It knows its components by their protocols alone. A value: change a component and the copy is another pipeline.
///
/// ```swift
/// let images = try await pipeline.images(for: GenerationRequest("a red apple"))
/// ```
///
/// The reference is diffusers: `StableDiffusionPipeline`, its `Img2Img`, `Inpaint` and `InstructPix2Pix` variants, and
/// `LatentConsistencyModelPipeline`.
public struct DiffusionPipeline: Sendable {
  /// What guesses the noise: a U-Net, as a rule.
  public var predictor: any NoisePredictor
  /// What takes pictures into latent space and back.
  public var autoencoder: any LatentAutoencoder
  /// What makes prompts into what guides the predictor.
  public var conditioner: any TextConditioner
  /// What makes pictures of a request into what guides the predictor beside the prompts, one for each of `GenerationRequest.imagePrompts`.
  public var imageConditioners: [any ImageConditioner] = []
  /// Makes the schedule of a generation from a number of steps, the task, which says how many of them are run, and what the request says of them.
  public var schedule: @Sendable (_ steps: Int, _ task: any GenerationTask, _ sampling: SamplingSettings) throws -> Schedule
  /// The size of pictures that start from nothing and for which the request names none; nil: what the predictor was trained on.
  public var defaultSize: PixelSize?
  /// What steps and guidance a request gets that names none; nil: the defaults of diffusers' pipelines.
  public var usual: (@Sendable (any GenerationTask) -> GenerationSettings)?
  /// The noise that the predictor was trained to find on pictures beside the latents, by its level (`low_res_scheduler`, up to `max_noise_level`);
  /// empty for models that take no such pictures.
  public var pictureNoise: [NoiseLevel] = []
  /// Whether the latents of a picture that is to be edited are scaled as the predictor's own are: those of CosXL (`is_cosxl_edit`), and no others.
  public var scalesPictures = false
  /// Asked before a generation begins; what it throws, `generate` throws. A plan for memory refuses here what it has no room for.
  public var admission: (@Sendable (GenerationExtent) throws -> Void)?
  /// The model that the components belong to; nil: none whose parameters a request can change.
  public var model: Adaptation.Model?
  /// Stands for the files that the components were made of: a checkpoint of others is refused. Nil: nobody knows them.
  public var content: ContentHash?
  /// For requests that have none of their own.
  public var adaptation: Adaptation?
  /// The matrix of previews; nil: it is fitted to the autoencoder when a generation needs one.
  public var latentPreview: LatentPreview?
  /// Whether previews are decoded and then averaged, in their true colours: for decoders that take no longer than a step. `latentPreview` goes before.
  public var decodesPreviews = false

  /// - Parameter scheduler: makes the scheduler for a number of steps; what it throws, a generation throws. Requests whose `sampling` says something are
  ///   refused.
  public init(
    predictor: any NoisePredictor, autoencoder: any LatentAutoencoder, conditioner: any TextConditioner,
    scheduler: @escaping @Sendable (_ steps: Int) throws -> any Scheduler
  ) {
    self.init(predictor: predictor, autoencoder: autoencoder, conditioner: conditioner) { steps, task, sampling in
      guard sampling == SamplingSettings() else {
        throw ComponentError.unsupported(component: "This pipeline's scheduler", option: "setting that a request changes")
      }
      return Schedule(try scheduler(steps), steps: steps, strength: task.strength)
    }
  }

  /// - Parameter schedule: for schedulers that shorten their own table (LCM), or that depend on the task; what it throws, a generation
  ///   throws.
  public init(
    predictor: any NoisePredictor, autoencoder: any LatentAutoencoder, conditioner: any TextConditioner,
    schedule: @escaping @Sendable (_ steps: Int, _ task: any GenerationTask, _ sampling: SamplingSettings) throws -> Schedule
  ) {
    self.predictor = predictor
    self.autoencoder = autoencoder
    self.conditioner = conditioner
    self.schedule = schedule
  }

  /// What both sides of a picture must be multiples of, in pixels.
  public var sideMultiple: Int { autoencoder.spatialScale * predictor.sideMultiple }

  /// The size of as many pixels as the model was made for, in the proportions of a picture; nil where the model does not say what it was made for.
  public func usualSize(inProportionsOf picture: PixelSize) -> PixelSize? {
    let scale = autoencoder.spatialScale
    let sides = predictor.sampleSides.map { PixelSize(width: $0.width * scale, height: $0.height * scale) }
    return (defaultSize ?? sides)?.inProportions(of: picture, multiple: sideMultiple)
  }

  /// The shape `[N, h, w, C]` of a request's latents, or `[N, F, h, w, C]` of clips, which is that of the noise it may bring.
  ///
  /// - Throws: `GenerationError` where the request cannot be carried out.
  public func latentShape(for request: GenerationRequest) throws -> Shape { try Plan(request, for: self).latentShape }

  /// Starts a generation; nothing is computed before the first event is asked for.
  ///
  /// - Parameters:
  ///   - checkpoint: where to go on; nil: at the beginning. It belongs to the same request on the same model.
  ///   - phase: told what is under way, on a thread of the engine: for people who wait.
  /// - Throws: `GenerationError` where the request cannot be carried out, `ComponentError` where the predictor has no such short cuts,
  ///   and what making the scheduler throws.
  public func generate(
    _ request: GenerationRequest, from checkpoint: Generation.Checkpoint? = nil, in context: ExecutionContext = ExecutionContext(),
    phase: @escaping @Sendable (GenerationPhase) -> Void = { _ in }
  ) throws -> Generation {
    var context = context
    if let adaptation = request.adaptation ?? adaptation { context.adaptation = adaptation }
    return Generation(plan: try Plan(request, for: self, phase: phase), start: checkpoint, context: context)
  }

  /// All pictures of a request.
  ///
  /// - Parameters:
  ///   - progress: told of every step, on the task that called.
  ///   - phase: told what is under way, on a thread of the engine.
  /// - Throws: `GenerationError`, `CancellationError`, and what the components throw.
  public func images(
    for request: GenerationRequest, in context: ExecutionContext = ExecutionContext(),
    progress: (GenerationStep) throws -> Void = { _ in }, phase: @escaping @Sendable (GenerationPhase) -> Void = { _ in }
  ) async throws -> [GeneratedImage] {
    var images: [GeneratedImage] = []
    for try await event in try generate(request, in: context, phase: phase) {
      switch event {
      case .step(let step): try progress(step)
      case .image(let image): images.append(image)
      }
    }
    return images
  }

  /// The most likely latents of pictures.
  ///
  /// - Parameter image: `[N, H, W, 3]`, 0…1, both sides multiples of the autoencoder's scale.
  /// - Returns: `[N, h, w, C]`, scaled as the noise predictor takes them.
  /// - Throws: `GenerationError`, `CancellationError`, and what the autoencoder throws.
  public func encode(_ image: Tensor, in context: ExecutionContext = ExecutionContext()) async throws -> Tensor {
    try image.checkPicture("The image", channels: 3)
    let scale = autoencoder.spatialScale
    guard image.shape[1].isMultiple(of: scale), image.shape[2].isMultiple(of: scale) else {
      throw GenerationError.indivisibleSize(width: image.shape[2], height: image.shape[1], multiple: scale)
    }
    try checkPixels(width: image.shape[2], height: image.shape[1])
    return try await context.run { context in
      // One at a time, as for `decode`.
      let count = image.shape[0]
      let modes = try (0..<count).map { index in
        try context.observed(Work(.encodingPicture, index: index, of: count)) {
          try autoencoder.checkedEncode(image.rows(index..<index + 1).centered, in: context).mode
        }
      }
      return autoencoder.scaled(Tensor.concatenated(modes, axis: 0))
    }
  }

  /// The pictures of latents.
  ///
  /// - Parameter latents: `[N, h, w, C]`, scaled, as a generation and `encode` return them.
  /// - Returns: `[N, H, W, 3]`, 0…1.
  /// - Throws: `GenerationError`, `CancellationError`, and what the autoencoder throws.
  public func decode(_ latents: Tensor, in context: ExecutionContext = ExecutionContext()) async throws -> Tensor {
    try latents.checkPicture("The latents", channels: autoencoder.latentChannels)
    let scale = autoencoder.spatialScale
    try checkPixels(width: latents.shape[2] * scale, height: latents.shape[1] * scale)
    return try await context.run { context in
      // One at a time: a decoder's buffers are large.
      let count = latents.shape[0]
      let images = try (0..<count).map { index in
        try context.observed(Work(.decoding, index: index, of: count)) {
          try autoencoder.image(of: latents.rows(index..<index + 1), in: context)
        }
      }
      return Tensor.concatenated(images, axis: 0)
    }
  }

  private func checkPixels(width: Int, height: Int) throws(GenerationError) {
    guard Shape([width, height]).count <= GenerationRequest.maximumPixels else {
      throw .tooLarge(width: width, height: height, images: 1)
    }
  }

  /// What a generation's previews are made with.
  enum Previewer: Sendable {
    case matrix(LatentPreview)
    case decoder(any LatentAutoencoder)

    /// - Parameter latents: `[N, h, w, C]`, of clips `[N, F, h, w, C]`, scaled.
    /// - Returns: `[N, h, w, 3]` or `[N, F, h, w, 3]`, 0…1.
    func image(of latents: Tensor, in context: ExecutionContext) throws -> Tensor {
      switch self {
      case .matrix(let preview): preview.image(of: latents)
      case .decoder(let autoencoder):
        try autoencoder.image(of: latents.framesAsPictures, in: context).averaged(over: autoencoder.spatialScale)
          .reshaped(Shape(latents.shape.dimensions.dropLast() + [3]))
      }
    }
  }

  func previewer(in context: ExecutionContext) throws -> Previewer {
    if let latentPreview { return .matrix(latentPreview) }
    return decodesPreviews ? .decoder(autoencoder) : .matrix(try LatentPreview(fittedTo: autoencoder, in: context))
  }
}
