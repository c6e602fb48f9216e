import Foundation
import ImageFiles
import LatentDiffusion

/// What a drawing tells while it draws.
enum DrawingEvent: Sendable {
  case progress(JobProgress)
  case preview(step: Int, Picture)
  case picture(DrawnPicture)
  case warning(String)
}

/// Draws the pictures of one job, one after the other.
struct Drawing: Sendable {
  /// The drawing was told to park: another process can go on.
  struct Parked: Error {}

  let request: PictureRequest
  let files: RequestFiles
  let shelf: ModelShelf
  let limits: ServerLimits
  let context: ExecutionContext
  let sign: StopSign
  /// The first picture that is not drawn yet.
  let first: Int
  /// Where it is saved on its way; nil: nowhere.
  let checkpoint: URL?
  let tell: @Sendable (DrawingEvent) async -> Void

  private static let pictureNote = "picture"
  /// Between two savings of the same picture, so that saving never takes much of the time.
  private static let savingInterval = Duration.seconds(5)

  /// - Throws: `Parked`, `CancellationError`, `ServerError`, and what loading and drawing throw.
  func run() async throws {
    await tell(.progress(JobProgress(phase: .loading, pictures: request.count)))
    let sent = try await sentPictures()
    var model = try await shelf.model(request.model, for: extent(of: sent.image, usual: shelf.usualSize(request.model)))
    let (prompt, tagged) = try taken()
    let loras = request.loras + tagged
    let adaptation = try await shelf.adaptation(of: request.model, by: loras)
    try useScheduler(of: &model)
    var saved = savedPlace()
    for index in first..<max(request.count, first) {
      var asked = try generationRequest(prompt, index, from: sent, for: model)
      asked.adaptation = adaptation
      if index == 0 { for warning in idle(asked) { await tell(.warning(warning)) } }
      let isOver: Bool
      do {
        isOver = try await draw(asked, index, from: saved, model, sent)
      } catch GenerationError.checkpointDoesNotFit where saved != nil {
        // The model is another one than before: the picture is drawn anew.
        isOver = try await draw(asked, index, from: nil, model, sent)
      }
      saved = nil
      if isOver { break }
    }
  }

  /// - Returns: whether nothing more is to be drawn.
  private func draw(
    _ asked: GenerationRequest, _ index: Int, from saved: Generation.Checkpoint?, _ model: StableDiffusion, _ sent: SentPictures
  ) async throws -> Bool {
    var progress = JobProgress(phase: .encoding, picture: index, pictures: request.count)
    await tell(.progress(progress))
    var steps = try model.pipeline.generate(asked, from: saved, in: context).makeAsyncIterator()
    var pace = Pace(), lastSaving = ContinuousClock.now
    while let event = try await steps.next() {
      switch event {
      case .step(let step):
        if step.index == 0, index == 0 { await warn(of: step.truncations) }
        pace.step()
        progress.phase = step.index + 1 == step.count ? .decoding : .denoising
        (progress.step, progress.steps) = (step.index + 1, step.count)
        progress.secondsLeft = pace.seconds(for: step.count - step.index - 1 + step.count * (request.count - index - 1))
        await tell(.progress(progress))
        if let preview = step.preview { await tell(.preview(step: step.index + 1, Picture(preview))) }
        switch sign.wish {
        case .goOn:
          guard let checkpoint, .now - lastSaving >= Self.savingInterval else { break }
          await save({ try steps.checkpoint }, picture: index, to: checkpoint)
          lastSaving = .now
        case .park:
          if let checkpoint { await save({ try steps.checkpoint }, picture: index, to: checkpoint) }
          throw Parked()
        case .interrupt where step.index + 1 < step.count:
          try await finishEarly(step, asked, index, model, sent)
          return true
        case .skip where step.index + 1 < step.count:
          try await finishEarly(step, asked, index, model, sent)
          sign.wish = .goOn
          return false
        case .interrupt, .skip: break
        }
      case .image(let image):
        try await tell(.picture(await drawn(sent.finished(Picture(image.image)), asked, index, model)))
      }
    }
    if sign.wish == .skip { sign.wish = .goOn }
    return sign.wish == .interrupt
  }

  /// The picture as far as it is known.
  private func finishEarly(
    _ step: GenerationStep, _ asked: GenerationRequest, _ index: Int, _ model: StableDiffusion, _ sent: SentPictures
  ) async throws {
    let image = try await model.pipeline.decode(step.predictedOriginal ?? step.latents, in: context)
    await tell(
      .warning("The drawing was interrupted after step \(step.index + 1) of \(step.count); this is what the picture was taken for."))
    try await tell(.picture(await drawn(sent.finished(Picture(image)), asked, index, model)))
  }

  private func warn(of truncations: [PromptTruncation]) async {
    for cut in truncations {
      let rest = cut.dropped.count > 200 ? cut.dropped.prefix(200) + " …" : cut.dropped[...]
      await tell(.warning("The model reads \(cut.limit) tokens, and the prompt has \(cut.tokens); this is left out: \"\(rest)\"."))
    }
  }

  // MARK: - What is drawn

  private func sentPictures() async throws -> SentPictures {
    let (files, painting, mode) = (files, request.painting, request.resizeMode ?? .stretch)
    let size = request.width.flatMap { width in request.height.map { PixelSize(width: width, height: $0) } }
    return try await context.run { _ in try SentPictures(files, painting, size: size, mode: mode) }
  }

  /// The prompt without LoRAs that it names, for profiles that have such tags.
  private func taken() throws -> (prompt: String, loras: [LoraUse]) {
    guard request.profile == .webui else { return (request.prompt, []) }
    let (text, tags) = try LoraTag.taken(from: request.prompt)
    return (text, tags.map { LoraUse(name: $0.name, strength: $0.weight) })
  }

  /// The scheduler that is asked for by name, and the spacing, which the name may say.
  private func chosen() throws -> (named: NamedScheduler?, spacing: SigmaSpacing?) {
    let named = try request.scheduler.map { try NamedScheduler($0) }
    return (named, request.spacing.flatMap(SigmaSpacing.init(rawValue:)) ?? named?.spacing)
  }

  private func useScheduler(of model: inout StableDiffusion) throws {
    let (named, spacing) = try chosen()
    guard named != nil || spacing != nil else { return }
    try model.use(named?.kind, spacing: spacing, algorithm: named?.algorithm)
  }

  /// What was asked for and has no effect with this model and scheduler. η is left out: clients of the webui send it whatever the sampler is.
  private func idle(_ asked: GenerationRequest) -> [String] {
    var sentences: [String] = []
    if let churn = request.churn, churn.amount > 0, asked.sampling.churn == nil {
      sentences.append("s_churn changes nothing: this scheduler has no churn.")
    }
    let isEdit = asked.task is InstructionEditing
    if isEdit, request.strength != nil { sentences.append("The strength changes nothing: this model edits by instruction.") }
    if !isEdit, request.imageGuidance != nil, request.imageGuidance != 1.5 {
      sentences.append("image_cfg_scale changes nothing: this model does not edit by instruction.")
    }
    return sentences
  }

  private func generationRequest(
    _ prompt: String, _ index: Int, from sent: SentPictures, for model: StableDiffusion
  ) throws -> GenerationRequest {
    let isXL = model.pipeline.conditioner is XLTextConditioner, profile = request.profile
    let skipped = try profile.skippedLayers(clipSkip: request.clipSkip, isXL: isXL)
    var asked = model.request(Prompt(prompt, skippedLayers: skipped, profile: profile), seed: request.seed &+ UInt64(index))
    if !request.negativePrompt.isEmpty {
      asked.negativePrompts = [Prompt(request.negativePrompt, skippedLayers: profile == .diffusers ? 0 : skipped, profile: profile)]
    }
    asked.follow(profile)
    asked.numbersSeeds = false
    asked.task = try task(sent, for: model)
    asked.steps = request.steps ?? min(max(1, Int((Double(asked.steps) * request.effort).rounded())), limits.steps)
    asked.guidance = request.guidance ?? asked.guidance
    asked.sampling = sampling(for: model)
    (asked.width, asked.height, asked.resizeMode) = (request.width, request.height, request.resizeMode ?? .stretch)
    fit(&asked, to: model.pipeline)
    asked.previewInterval =
      request.previewEvery ?? (request.previewCount > 0 ? max(1, asked.steps / (request.previewCount + 1)) : nil)
    try check(asked, model.pipeline)
    return asked
  }

  private func task(_ sent: SentPictures, for model: StableDiffusion) throws -> any GenerationTask {
    guard let image = sent.image else { return TextToImage() }
    let pixels = image.tensor(), usual = { model.pipeline.usual?($0).strength }
    if let extend = request.extend {
      var task = try Inpainting.outpainting(
        pixels, left: extend.left, right: extend.right, top: extend.top, bottom: extend.bottom, strength: request.strength ?? 1)
      task.keepsPixelsOutsideMask = request.keepUnmasked
      return task
    }
    if let mask = sent.mask {
      var task = Inpainting(image: pixels, mask: self.mask(mask, for: model.pipeline).tensor(), keepsPixelsOutsideMask: request.keepsByTask)
      task.strength = request.strength ?? usual(task) ?? task.strength
      return task
    }
    let edit = InstructionEditing(pixels, imageGuidance: request.imageGuidance ?? 1.5)
    if model.pipeline.takes(edit), !model.pipeline.takes(TextToImage()) { return edit }
    var task = ImageToImage(.pixels(pixels))
    task.strength = request.strength ?? usual(task) ?? task.strength
    return task
  }

  /// A mask with a soft edge as the latents see it, if it says what is put back into them. A model that is shown the masked picture sees all of the mask.
  private func mask(_ mask: PictureMask, for pipeline: DiffusionPipeline) -> PictureMask {
    guard request.painting != nil, pipeline.predictor.inputChannels == pipeline.autoencoder.latentChannels else { return mask }
    return mask.rounded(inSquaresOf: pipeline.autoencoder.spatialScale)
  }

  /// η and churn, where the scheduler has them: clients of the webui send them whatever the sampler is.
  private func sampling(for model: StableDiffusion) -> SamplingSettings {
    var settings = SamplingSettings()
    func admits(_ change: (inout SamplingSettings) -> Void) -> Bool {
      var changed = settings
      change(&changed)
      return (try? model.schedulerKind?.check(changed)) != nil
    }
    if let eta = request.eta, admits({ $0.eta = eta }) { settings.eta = eta }
    if let churn = request.churn, churn.amount > 0, admits({ $0.churn = churn.amount }) {
      (settings.churn, settings.churnMinimum, settings.churnMaximum) = (churn.amount, churn.minimum, churn.maximum)
      settings.noiseScale = churn.noise
    }
    return settings
  }

  /// Without a size, a picture of far more pixels than the model was made for is drawn at the model's, in its own proportions.
  private func fit(_ asked: inout GenerationRequest, to pipeline: DiffusionPipeline) {
    guard asked.width == nil, asked.height == nil, !asked.task.fillsUp, case .pixels(let size) = asked.task.source(scale: 1),
      let own = pipeline.usualSize(inProportionsOf: size), size.width * size.height > 4 * own.width * own.height
    else { return }
    (asked.width, asked.height, asked.resizeMode) = (own.width, own.height, request.resizeMode ?? .crop)
  }

  /// - Throws: `ServerError` where the picture, whose size nobody may have named, is larger than is allowed.
  private func check(_ asked: GenerationRequest, _ pipeline: DiffusionPipeline) throws {
    let scale = pipeline.autoencoder.spatialScale, shape = try pipeline.latentShape(for: asked)
    let (width, height) = (shape[2] * scale, shape[1] * scale)
    guard max(width, height) <= limits.side, width * height <= limits.pixels else {
      throw ServerError.field(
        "image", "The picture would have \(width)×\(height) pixels; at most \(limits.pixels) are allowed, and \(limits.side) on a side.")
    }
  }

  /// The size of the work as far as it is known before the model is loaded; nil: that of the model.
  private func extent(of image: Picture?, usual: PixelSize?) -> GenerationExtent? {
    // As `fit` has it.
    if let image, let usual, request.width == nil, request.height == nil, request.extend == nil, !(request.hasMask && request.keepsByTask),
      image.width * image.height > 4 * usual.width * usual.height
    {
      return GenerationExtent(
        size: usual.inProportions(of: PixelSize(width: image.width, height: image.height), multiple: 64), encodesPicture: true)
    }
    func planned(_ side: Int) -> Int { (min(max(side, 64), limits.side) + 63) / 64 * 64 }
    let border = request.extend ?? Borders()
    guard let width = request.width ?? image.map({ $0.width + border.left + border.right }),
      let height = request.height ?? image.map({ $0.height + border.top + border.bottom })
    else { return nil }
    return GenerationExtent(size: PixelSize(width: planned(width), height: planned(height)), encodesPicture: image != nil)
  }

  private func drawn(
    _ picture: Picture, _ asked: GenerationRequest, _ index: Int, _ model: StableDiffusion
  ) async throws -> DrawnPicture {
    let (named, spacing) = try chosen()
    let sampler = model.schedulerKind.map { NamedScheduler($0, spacing, named?.algorithm).name } ?? ""
    let skip = request.profile == .diffusers ? request.clipSkip + 1 : request.clipSkip
    var others: [(name: String, value: String?)] = [
      ("Schedule type", spacing?.rawValue), ("Eta", asked.sampling.eta.map { "\($0)" }), ("Clip skip", skip > 1 ? "\(skip)" : nil),
      ("Profile", request.profile == .diffusers ? nil : request.profile.rawValue),
    ]
    others += request.painting?.parameters ?? []
    let parameters = GenerationParameters(
      prompt: request.prompt, negativePrompt: request.negativePrompt, steps: asked.steps, sampler: sampler,
      guidanceScale: Float(asked.guidance), seed: asked.seed, width: picture.width, height: picture.height, model: request.model,
      strength: files.image == nil ? nil : Float(asked.task.strength),
      others: others.compactMap { other in other.value.map { .init(other.name, $0) } }
        + request.loras.map { .init("LoRA", "\($0.name)=\($0.strength)") })
    let data: Data
    do {
      data = try request.format.data(of: picture, parameters: parameters.text)
    } catch ImageFileError.notEncodable {
      // The picture must not be lost for a text that is too long for its format.
      data = try request.format.data(of: picture, parameters: nil)
      await tell(.warning("The picture does not say how it was made: the text is too long for its format."))
    }
    return DrawnPicture(
      index: index, data: data, width: picture.width, height: picture.height, seed: asked.seed, parameters: parameters.text,
      facts: DrawnFacts(steps: asked.steps, guidance: asked.guidance, sampler: sampler))
  }

  // MARK: - Where it is

  /// The drawing goes on where this fails; what is lost is told.
  private func save(_ place: () throws -> Generation.Checkpoint?, picture: Int, to url: URL) async {
    do {
      try place()?.write(to: url, notes: [Self.pictureNote: "\(picture)"])
    } catch {
      await tell(.warning("Where the drawing is cannot be kept: \(reason(error))."))
    }
  }

  /// Where another process left the first picture; nil: nowhere. A damaged file is as good as none.
  private func savedPlace() -> Generation.Checkpoint? {
    guard let checkpoint, FileManager.default.fileExists(atPath: checkpoint.path(percentEncoded: false)) else { return nil }
    guard (try? Generation.Checkpoint.notes(in: checkpoint))?[Self.pictureNote] == "\(first)" else { return nil }
    return try? Generation.Checkpoint(contentsOf: checkpoint)
  }
}

/// How long steps take.
private struct Pace {
  private let start = ContinuousClock.now
  private var steps = 0
  private var last = ContinuousClock.now
  private var first: ContinuousClock.Instant?

  mutating func step() {
    (steps, last) = (steps + 1, .now)
    if first == nil { first = last }
  }

  /// The first step is left out where there are others: it also prepares.
  func seconds(for count: Int) -> Double? {
    guard let first, steps > 0 else { return nil }
    let spent = steps > 1 ? last - first : last - start
    return spent / .seconds(1) / Double(steps > 1 ? steps - 1 : 1) * Double(count)
  }
}
