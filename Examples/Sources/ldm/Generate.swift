import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

/// The options of all commands that make pictures of words.
typealias GenerateOptions = DrawingOptions<PromptOptions, PictureOptions>

/// The options of all commands that make pictures.
struct DrawingOptions<Words: WordOptions, Drawn: DrawnOptions>: ParsableArguments {
  @OptionGroup(title: "Model") var model: ModelOptions
  @OptionGroup(title: "Prompt") var prompt: Words
  @OptionGroup(title: "Adapters") var adapters: AdapterOptions
  @OptionGroup(title: "Pictures as prompts") var imagePrompts: ImagePromptOptions
  @OptionGroup(title: "Sampling") var sampling: SamplingOptions
  @OptionGroup(title: "Sampling") var scheduling: SchedulerOptions
  @OptionGroup(title: "Guidance") var guiding: GuidanceOptions
  @OptionGroup(title: "Stable Diffusion XL") var sizes: SizeOptions
  @OptionGroup(title: "Stable Diffusion XL") var refining: RefinerOptions
  @OptionGroup(title: "Pictures that steer") var controls: ControlOptions
  @OptionGroup(title: "Short cuts") var shortcuts: ShortcutOptions
  @OptionGroup(title: "Memory") var memory: MemoryOptions
  @OptionGroup(title: "Memory") var tiles: TileOptions
  @OptionGroup var drawn: Drawn

  /// What is ready to be drawn.
  struct Ready {
    var model: StableDiffusion
    var request: GenerationRequest
    /// The prompt as it was given.
    var written: String
    let plan: MemoryPlan?
    /// Where the drawing was when another process left it; nil once that is behind.
    var kept: KeepingOptions.Kept?
    let context: ExecutionContext
  }

  /// Reads what is given, loads the model, and makes a request of the options.
  ///
  /// - Parameters:
  ///   - files: the names of the files that the task reads, for the progress.
  ///   - strength: the part of the steps that are run; nil: what is usual for the model.
  ///   - imagePrompts: what the model itself takes of pictures, before those of adapters.
  ///   - loadNoise: the file of the noise to start from; nil: the seed's.
  ///   - task: what the pictures start from. It is read before the model, because its errors are found faster.
  func ready(
    reading files: [String] = [], strength: Double? = nil, imagePrompts own: @autoclosure () throws -> [ImagePrompt] = [],
    loadNoise: String? = nil, _ progress: Progress, _ task: @autoclosure () throws -> any GenerationTask
  ) async throws -> Ready {
    try adapters.checkNone(in: [
      "--prompt-2": prompt.prompt2, "--negative-prompt": prompt.negativePrompt, "--negative-prompt-2": prompt.negativePrompt2,
    ])
    if let kind = scheduling.scheduler?.kind, !kind.leadsToPictures {
      throw Failure("The scheduler \(kind.rawValue) leads from a picture to its noise and draws none; choose another with --scheduler.")
    }
    for later in drawn.laterPrompts { try adapters.checkNone(in: ["--prompt-at": later.prompt.text]) }
    let kept = try drawn.keeping.kept()
    let windows = try drawn.frameWindows()
    let files = files + imagePrompts.images
    if !files.isEmpty { progress.begin("Reading \(files.joined(separator: " and "))") }
    var task = try task()
    let pictures = try own() + imagePrompts.prompts()
    let noise = try loadNoise.map { try readLatents($0, names: ["noise"], ofClips: task.frames != .picture) }
    let written = try self.prompt.text()
    let (prompt, tagged) = try self.adapters.taken(from: written, profile: self.prompt.profile)
    let adapters = try self.adapters.adapted(by: tagged)
    let context = model.context
    progress.begin("Loading \(model.name)")
    let company = ModelCompany(controls: controls.files, ipAdapters: imagePrompts.files)
    let steering = try memory.memoryLimit == nil ? nil : controls.images.first.map { try picture($0) }
    let plan = try memory.plan(model, beside: company, adapters: adapters.adapters) {
      extent(task, saying: prompt, in: windows, steeredBy: steering, usual: $0)
    }
    var loaded = try await load(model, plan, adapters, in: context)
    try self.prompt.check(loaded)
    try await imagePrompts.apply(to: &loaded, plan: plan, in: context)
    if let strength = strength ?? loaded.pipeline.usual?(task).strength { task = withStrength(strength, task) }
    var request = try request(prompt, task, for: loaded)
    request.seed = drawn.seed ?? kept?.seed ?? request.seed
    self.prompt.warn(of: loaded, progress)
    (request.imagePrompts, request.frameWindows) = (pictures, windows)
    request.controls = try await controls.load(as: model.weights, plan: plan, in: context)
    fitToControls(&request, loaded.pipeline)
    if let noise, let path = loadNoise {
      let expected = try loaded.pipeline.latentShape(for: request)
      guard noise.shape == expected else {
        throw Failure("\(path) holds noise of shape \(channelsFirst(noise.shape)), but this picture needs \(channelsFirst(expected)).")
      }
      request.noise = noise
    }
    if let plan { progress.tell("\(plan), \(try await plan.time(steps: request.steps, in: context)).") }
    fitToModel(&request, loaded.pipeline, progress)
    return Ready(model: loaded, request: request, written: written, plan: plan, kept: kept, context: context)
  }

  /// Loads a model and chooses its scheduler.
  private func load(
    _ model: ModelOptions, _ plan: MemoryPlan?, _ adapters: ModelAdapters = ModelAdapters(), in context: ExecutionContext
  ) async throws -> StableDiffusion {
    var loaded = try await model.load(plan: plan, tiles: tiles, adapters: adapters, in: context)
    if let prediction = sampling.prediction { loaded.predictionType = prediction.type }
    if scheduling.scheduler == nil, let problem = loaded.schedulerProblem { throw Failure("\(problem) Name it with --scheduler.") }
    if scheduling.choosesAny {
      try loaded.use(
        scheduling.scheduler?.kind, spacing: scheduling.sigmaSpacing, timesteps: scheduling.timestepSpacing, betas: scheduling.betas,
        sampling: scheduling.settings, algorithm: scheduling.scheduler?.algorithm)
    }
    return loaded
  }

  /// The second model; nil if there is none.
  private var refiner: ModelOptions? {
    refining.refiner.map {
      var options = model
      (options.model, options.parts) = ($0, model.parts.autoencoderAlone)
      return options
    }
  }

  /// Makes the first steps with the first model, and turns the request into one for the second model, which makes the others. The first model is let go before
  /// the second is loaded.
  /// - Returns: the pass of the second model.
  private func refine(_ ready: inout Ready, with refiner: ModelOptions, _ progress: Progress) async throws -> DrawingPass {
    let context = ready.context, name = "with the refiner"
    var request = ready.request
    let latents: Tensor
    if let kept = try ready.kept?.start(of: name, count: drawn.count) {
      latents = kept
    } else {
      ready.request.denoisingEnd = refining.place
      latents = try await self.latents(of: ready, pass: DrawingPass(name: "before the refiner"), progress)
      ready.kept = nil
    }
    let (steps, guidance, size) = (request.steps, request.guidance, latents.shape)
    progress.begin("Loading \(refiner.name)")
    let scale = ready.model.pipeline.autoencoder.spatialScale
    let plan = try memory.plan(refiner) { _ in
      GenerationExtent(size: PixelSize(width: size[2] * scale, height: size[1] * scale), images: size[0])
    }
    ready.model = try await load(refiner, plan, in: context)
    request.task = ImageToImage(.latents(latents))
    (request.steps, request.guidance, request.usual) = (steps, guidance, ready.model.pipeline.usual)
    (request.width, request.height, request.noise) = (nil, nil, nil)
    // What steers the first model, and its adapters' pictures, are for that one.
    (request.controls, request.imagePrompts) = ([], [])
    (request.denoisingStart, request.denoisingEnd) = (refining.place, nil)
    sizes.apply(to: &request, targets: false)
    if !ready.model.pipeline.conditioner.readsSecondTexts {
      for index in request.prompts.indices { request.prompts[index].second = nil }
      for index in request.negativePrompts.indices { request.negativePrompts[index].second = nil }
    }
    ready.request = request
    return DrawingPass(name: name, start: latents)
  }

  /// A picture of far more pixels than the model was made for would take minutes and look bad. It is drawn at the model's size in its own proportions, unless
  /// the user asks for a size or its pixels must come back.
  private func fitToModel(_ request: inout GenerationRequest, _ pipeline: DiffusionPipeline, _ progress: Progress) {
    request.resizeMode = sampling.resizeMode ?? .stretch
    guard let picture = request.task.size, let own = pipeline.usualSize(inProportionsOf: picture), isFitted(request.task, own) else {
      return
    }
    (request.width, request.height, request.resizeMode) = (own.width, own.height, sampling.resizeMode ?? .crop)
    progress.tell("The picture of \(picture.width)×\(picture.height) is drawn at \(own.width)×\(own.height), as the model was made for.")
  }

  /// Without a size and a picture to start from, a picture has the proportions of what steers it.
  private func fitToControls(_ request: inout GenerationRequest, _ pipeline: DiffusionPipeline) {
    guard sampling.width == nil, sampling.height == nil, request.task.size == nil, let picture = request.controls.first?.picture,
      let own = pipeline.usualSize(inProportionsOf: PixelSize(width: picture.shape[2], height: picture.shape[1]))
    else { return }
    (request.width, request.height) = (own.width, own.height)
  }

  /// - Parameter own: the size that the model was made for.
  private func isFitted(_ task: any GenerationTask, _ own: PixelSize) -> Bool {
    guard sampling.width == nil, sampling.height == nil, !task.fillsUp, let picture = task.size else { return false }
    return sampling.resizeMode != nil || picture.width * picture.height > 4 * own.width * own.height
  }

  /// Warns that a prompt is cut, and shows the beginning of the part that is left out.
  func tell(_ truncation: PromptTruncation, _ progress: Progress) {
    let shown = truncation.dropped.count > 200 ? truncation.dropped.prefix(200) + " …" : truncation.dropped[...]
    let name = truncation.prompt.text == prompt.negativePrompt ? "negative prompt" : "prompt"
    progress.warn(
      "The model reads \(truncation.limit) tokens, and the \(name) has \(truncation.tokens); this is left out: \"\(shown)\".")
  }

  /// The size of the work, as far as it is known before the model is loaded.
  private func extent(
    _ task: any GenerationTask, saying text: String, in windows: FrameWindows?, steeredBy picture: Picture?, usual: PixelSize?
  ) -> GenerationExtent? {
    var source = task.size ?? usual
    // Without a size and a picture to start from, the proportions are those of what steers.
    if task.size == nil, sampling.width == nil, sampling.height == nil, let picture {
      source = usual?.inProportions(of: PixelSize(width: picture.width, height: picture.height), multiple: 8)
    }
    // What is enlarged becomes as many times as large as the model's scale says.
    if case .latents = task.source(scale: 1), let files = try? model.files,
      let scale = try? MemoryPlan.usualSize(of: files.base, replacing: files.parts).scale,
      case .latents(let size) = task.source(scale: scale)
    {
      source = size
    }
    if let picture = task.size, let own = usual, isFitted(task, own) { source = own.inProportions(of: picture, multiple: 8) }
    if let picture = task.size {
      // If one side is given, the other follows from it.
      let (w, h) = (Double(picture.width), Double(picture.height))
      if let width = sampling.width, sampling.height == nil {
        source = PixelSize(width: width, height: Int(min(h * Double(width) / w, 1e9)))
      }
      if let height = sampling.height, sampling.width == nil {
        source = PixelSize(width: Int(min(w * Double(height) / h, 1e9)), height: height)
      }
    }
    guard let width = sampling.width ?? source?.width, let height = sampling.height ?? source?.height else { return nil }
    // CFG++ and prompts with parts look at the negative prompt whatever the scale is.
    let parts = prompt.profile.composition(text), isComposed = parts.count > 1 || parts.contains { $0.weight != 1 }
    let guidance = guiding.cfgPlusPlus || isComposed ? 2 : sampling.guidance ?? 2
    let kinds = guidance > 1 ? (try? task.guidance(scale: guidance, rescale: 0))?.rows ?? [] : [GuidanceRow(.prompt)]
    // The model takes the next size that it can divide, so this rounds up to multiples of 64. The request reports a size that is too large.
    func planned(_ side: Int) -> Int { max(64, (min(side, GenerationRequest.maximumPixels) + 63) / 64 * 64) }
    let size = PixelSize(width: planned(width), height: planned(height))
    var extent = GenerationExtent(
      size: size, images: drawn.count, rowsPerImage: kinds.count, sharesLatents: kinds.allSatisfy(\.seesPicture),
      encodesPicture: task.size != nil)
    if let (rows, length) = textExtent(text) {
      extent.rowsPerImage += rows - 1
      extent.contextLength = length
    }
    extent.restingRows = guiding.restingRows * parts.count
    extent.waitingTexts = (textsInTurn(text) - 1) * (extent.rowsPerImage + extent.restingRows)
    extent.stepCaching = shortcuts.stepCaching
    (extent.frameWindows, extent.framesDecodedTogether) = (windows, task.framesDecodedTogether)
    let mostFrames = GenerationRequest.maximumPixels / (size.width * size.height)
    if case .count(let frames) = task.frames { extent.frames = max(1, min(frames, mostFrames)) }
    return extent
  }

  /// How many combinations of texts the prompts say in turn, if they change from step to step.
  private func textsInTurn(_ text: String) -> Int {
    let steps = sampling.steps ?? scheduling.settings?.count ?? 50, profile = prompt.profile
    let texts = profile.composition(text).map(\.text) + [prompt.negativePrompt].compactMap(\.self)
    let said = texts.map { (try? profile.schedule($0, steps: steps)) ?? [] }
    // As many as there are steps at which one of them changes, or as all of them can be combined.
    let changes = Set(said.flatMap { $0.map(\.lastStep) }).count
    return max(1, said.reduce(1) { min($0 * max(1, Set($1.map(\.text)).count), max(changes, 1)) })
  }

  /// How many parts of the prompt are added up, and the tokens of the longest text. Nil where prompts are plain, or nothing says it before the model is loaded.
  private func textExtent(_ text: String) -> (rows: Int, length: Int)? {
    let profile = prompt.profile
    guard profile != .diffusers, let files = try? model.files,
      let tokenizer = try? StableDiffusion.tokenizer(from: files.base, replacing: files.parts)
    else { return nil }
    let places = [text, prompt.negativePrompt ?? ""].map { (try? tokenizer.tokens(of: $0, profile: profile))?.places.count ?? 1 }
    return (profile.composition(text).count, (places.max() ?? 1) * tokenizer.maximumLength)
  }

  private func request(_ prompt: String, _ task: any GenerationTask, for model: StableDiffusion) throws -> GenerationRequest {
    let words = self.prompt
    var request = model.request(try words.prompt(prompt, second: words.prompt2, for: model))
    request.task = task
    request.negativePrompts =
      try words.negativePrompt.map {
        [try words.prompt($0, second: words.negativePrompt2, isNegative: true, for: model)]
      } ?? []
    request.laterPrompts = try drawn.laterPrompts.map {
      FramePrompt($0.frame, try words.prompt($0.prompt.text, second: words.prompt2, for: model))
    }
    request.follow(words.profile, noise: sampling.noise)
    request.steps = sampling.steps ?? scheduling.settings?.count ?? request.steps
    request.guidance = sampling.guidance ?? request.guidance
    request.imagesPerPrompt = drawn.count
    request.width = sampling.width
    request.height = sampling.height
    try guiding.apply(to: &request, scale: sampling.guidance)
    shortcuts.apply(to: &request)
    sizes.apply(to: &request, scores: refining.refiner == nil)
    return request
  }

  /// How pictures of a size are made.
  /// - Parameter others: settings that come last.
  func parameters(
    prompt written: String, width: Int, height: Int, request: GenerationRequest, model loaded: StableDiffusion,
    others: [GenerationParameters.Setting]
  ) -> GenerationParameters {
    let strength: Double? =
      switch request.task {
      case is TextToImage, is TextToVideo, is ImageToVideo, is InstructionEditing, is Upscaling, is LatentUpscaling: nil
      default: request.task.strength
      }
    return GenerationParameters(
      prompt: written, negativePrompt: prompt.negativePrompt ?? "", steps: request.steps,
      sampler: loaded.schedulerKind.map { NamedScheduler($0, scheduling.sigmaSpacing, scheduling.scheduler?.algorithm).name } ?? "",
      guidanceScale: Float(request.guidance),
      seed: request.seed, width: width, height: height, model: model.name, strength: strength.map { Float($0) },
      others: self.model.parts.settings + scheduling.writtenSettings + prompt.settings + prompt.readingSettings + sampling.settings
        + adapters.settings + imagePrompts.settings
        + sizes.settings + refining.settings(refiner) + controls.settings + guiding.settings + shortcuts.settings + others)
  }
}

extension DrawingOptions where Drawn == PictureOptions {
  /// Makes pictures and writes them.
  ///
  /// - Parameters:
  ///   - needsPrompt: whether there must be a prompt.
  ///   - others: as for `ready`.
  func run(
    reading files: [String] = [], strength: Double? = nil, imagePrompts own: @autoclosure () throws -> [ImagePrompt] = [],
    needsPrompt: Bool = true, _ task: @autoclosure () throws -> any GenerationTask
  ) async throws {
    if needsPrompt { try prompt.checkIsGiven() }
    try drawn.output.check(count: drawn.count)
    try drawn.keeping.check(usesOutput: drawn.output.isStandardOutput)
    let progress = Progress(keepsOutputFree: drawn.output.isStandardOutput, isJSON: drawn.keeping.json)
    do {
      var ready = try await ready(
        reading: files, strength: strength, imagePrompts: own(), loadNoise: drawn.seeds.loadNoise, progress, task())
      var pass = DrawingPass()
      if let refiner { pass = try await refine(&ready, with: refiner, progress) }
      let images = try await images(of: ready, pass: pass, progress)
      let (sentence, files) = try write(images, ready)
      drawn.keeping.forget()
      try progress.end(sentence, files)
    } catch {
      progress.clear()
      throw error
    }
  }

  /// - Parameter settings: that are written into pictures, after all others.
  /// - Returns: a sentence about what was written, and the same for other programs.
  func write(
    _ images: [GeneratedImage], _ ready: Ready, settings: [GenerationParameters.Setting] = []
  ) throws -> (String, DrawnFiles) {
    let output = drawn.output, files = output.pictures(images.count)
    try Signals.whole {
      for (image, file) in zip(images, files) {
        try output.write(Picture(image.image), to: file, parameters: parameters(of: image, ready, settings).text)
      }
      if let path = output.saveLatents {
        try writeTensor("latents", withChannelsFirst(Tensor.concatenated(images.map(\.latents), axis: 0)), to: path)
      }
      if let path = output.saveImageTensor {
        try writeTensor("image", Tensor.concatenated(images.map(\.image), axis: 0), to: path)
      }
    }
    let names =
      output.isStandardOutput
      ? ["-"] : files.map { $0.relativePath.hasPrefix("./") ? String($0.relativePath.dropFirst(2)) : $0.relativePath }
    let shape = images.first?.image.shape ?? [0, 0, 0, 0]
    return (
      "\(names.joined(separator: ", ")): \(shape[2])×\(shape[1]), seed \(ready.request.seed)",
      DrawnFiles(files: names, width: shape[2], height: shape[1], seed: ready.request.seed)
    )
  }

  private func parameters(
    of image: GeneratedImage, _ ready: Ready, _ settings: [GenerationParameters.Setting]
  ) -> GenerationParameters {
    var request = ready.request
    if request.numbersSeeds { request.seed &+= UInt64(image.index) }
    // Where one seed draws the noise of all pictures of a batch, the picture's index is needed, too.
    let batch: [GenerationParameters.Setting] =
      request.imagesPerPrompt == 1 || request.numbersSeeds
      ? [] : [.init("Batch size", "\(request.imagesPerPrompt)"), .init("Batch pos", "\(image.index)")]
    return parameters(
      prompt: ready.written, width: image.image.shape[2], height: image.image.shape[1], request: request, model: ready.model,
      others: batch + settings)
  }
}

extension GenerationTask {
  /// The size of the picture that the task starts from; nil if there is none.
  fileprivate var size: PixelSize? { if case .pixels(let size) = source(scale: 1) { size } else { nil } }
}

/// The same task with so much of the steps, where it has a strength.
private func withStrength(_ strength: Double, _ task: any GenerationTask) -> any GenerationTask {
  switch task {
  case var task as ImageToImage:
    task.strength = strength
    return task
  case var task as Inpainting:
    task.strength = strength
    return task
  case var task as VideoToVideo:
    task.strength = strength
    return task
  default: return task
  }
}
