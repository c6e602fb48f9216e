import LatentDiffusionComponents
import Tensor

/// A request that was found possible, with everything decided that can be decided without computing.
struct Plan: Sendable {
  let pipeline: DiffusionPipeline
  /// The pipeline's, with what the request changes about it.
  let predictor: any NoisePredictor
  /// The same with perturbed attention, for rows that are to go through it; nil where there are none.
  let perturbed: (any NoisePredictor)?
  /// The same that tells what its middle looks at, for rows on which others depend; nil where none do.
  let telling: (any NoisePredictor)?
  let request: GenerationRequest
  let schedule: Schedule
  /// As it is before the first step.
  let guidance: any Guidance
  /// What the prompts say in each step, for each text of the guidance whose conditioning is not given.
  let scripts: [GuidanceRow.Text: [PromptScript]]
  /// Of the pictures that go through the model.
  let size: PixelSize
  /// Of the pictures that come out; smaller where the model's input was filled up.
  let outputSize: PixelSize
  /// Of each clip; nil for pictures.
  let frames: Int?
  /// What the text encoder does not read of the prompts.
  let truncations: [PromptTruncation]
  /// Steps as prompts that change count them: those that evaluate the predictor twice count twice, and so on.
  let promptSteps: Int
  /// Told what is under way.
  let phase: @Sendable (GenerationPhase) -> Void

  /// Pictures or clips.
  var count: Int { request.prompts.count * request.imagesPerPrompt }
  /// Pictures, or frames of all clips.
  var pictures: Int { count * (frames ?? 1) }
  /// Of a clip, the frames that are decoded together: those that see one another.
  private var framesDecodedTogether: Int {
    guard let frames, pipeline.autoencoder.decodesClips else { return 1 }
    return min(frames, request.task.framesDecodedTogether ?? frames)
  }

  var latentShape: Shape {
    let scale = pipeline.autoencoder.spatialScale
    return Shape(
      [count] + (frames.map { [$0] } ?? []) + [size.height / scale, size.width / scale, pipeline.autoencoder.latentChannels])
  }

  /// - Throws: `GenerationError`, what making the scheduler throws, and `ComponentError` where the predictor has no such short cuts.
  init(_ request: GenerationRequest, for pipeline: DiffusionPipeline, phase: @escaping @Sendable (GenerationPhase) -> Void = { _ in })
    throws
  {
    var request = request
    if request.usual == nil {
      let isConsistencyModel = pipeline.predictor.embedsGuidance
      request.usual = pipeline.usual ?? { $0.usualSettings(ofConsistencyModel: isConsistencyModel) }
    }
    try request.checkNumbers()
    try request.task.check(latentChannels: pipeline.autoencoder.latentChannels)
    frames = try request.frames(for: pipeline.predictor)
    try pipeline.checkChannels(for: request.task)
    if request.imagePrompts.isEmpty { request.imagePrompts = request.task.imagePrompts }
    try request.checkImagePrompts(for: pipeline.imageConditioners)
    (size, outputSize) = try request.sizes(for: pipeline, frames: frames ?? 1)
    (self.pipeline, self.request, self.phase) = (pipeline, request, phase)
    let network = try request.freeU.map { try pipeline.predictor.changed(by: .freeU($0)) } ?? pipeline.predictor
    let drawing = try request.frameWindows.map { try network.drawing(in: $0) } ?? network
    predictor = drawing
    perturbed = try request.perturbedAttention.map { try drawing.changed(by: .perturbedAttention($0.layers)) }
    schedule = try pipeline.schedule(request.steps, request.task, request.sampling)
      .limited(from: request.denoisingStart, to: request.denoisingEnd)
    guard (0..<schedule.endStep).contains(schedule.firstStep), request.task.hasSteps(of: request.steps) else {
      throw GenerationError.noStepsLeft(steps: request.steps, strength: request.task.strength)
    }
    guard !schedule.scheduler.takesVariance || predictor.outputChannels == 2 * pipeline.autoencoder.latentChannels else {
      throw ComponentError.unsupported(
        component: "This network", option: "prediction of a variance, which the scheduler's variance_type asks for")
    }
    let promptSteps = request.steps * schedule.scheduler.order
    func scripts(_ prompts: [Prompt], isNegative: Bool) throws -> [PromptScript] {
      try prompts.map { try PromptScript($0, steps: promptSteps, isNegative: isNegative) }
    }
    var said: [GuidanceRow.Text: [PromptScript]] = [:]
    if request.conditioning == nil { said[.prompt] = try scripts(request.prompts, isNegative: false) }
    guidance = try request.guidance(
      embedded: pipeline.predictor.embedsGuidance, composed: said[.prompt]?.contains(where: \.isComposed) ?? false,
      schedule: schedule)
    telling = try guidance.rows.contains(where: \.isDegraded) ? drawing.changed(by: .toldAttention) : nil
    // Without guidance nobody looks at the negative ones.
    if guidance.rows.contains(where: { $0.text == .negativePrompt }), request.negativeConditioning == nil {
      said[.negativePrompt] = try scripts(request.negativeOrEmpty, isNegative: true)
    }
    (self.scripts, self.promptSteps) = (said, promptSteps)
    // Each text once, in the order of the request.
    let texts =
      (said[.prompt] ?? []).flatMap(\.prompts) + request.laterPrompts.map(\.prompt) + (said[.negativePrompt] ?? []).flatMap(\.prompts)
    var seen: Set<Prompt> = []
    truncations = texts.filter { seen.insert($0).inserted }.compactMap { pipeline.conditioner.truncation(of: $0) }
    try checkGuidance()
    try checkReaders(of: texts)
    if frames != nil {
      for prompt in request.prompts + request.laterPrompts.map(\.prompt) { _ = try only(prompt, of: "A clip") }
      for prompt in request.negativePrompts { _ = try only(prompt, isNegative: true, of: "A clip") }
    }
    try checkLaterPrompts()
    try predictor.check(request.shortcuts)
    for control in request.controls {
      try control.check(pipeline.predictor, prompts: request.prompts.count, count: count, frames: frames)
    }
    if let adaptation = request.adaptation, adaptation.model !== pipeline.model { throw GenerationError.foreignAdaptation }
    try checkTensors()
    if let admission = pipeline.admission { try admission(extent()) }
  }

  /// - Throws: `ComponentError` for a guidance that the scheduler or the predictor cannot follow.
  private func checkGuidance() throws(ComponentError) {
    let steps = schedule.endStep - schedule.firstStep
    if !schedule.scheduler.putsNoiseBack, (0..<steps).contains(where: { guidance.renoisingRow(at: $0, of: steps) != nil }) {
      throw .unsupported(component: "This scheduler", option: "CFG++, which goes with DDIM, Euler and Euler ancestral")
    }
    if perturbed == nil, guidance.rows.contains(where: \.isPerturbed) {
      throw .missingInput(component: "A guidance by perturbed attention", argument: "the layers that are perturbed")
    }
    if perturbed != nil, !guidance.rows.contains(GuidanceRow(.prompt)) {
      throw .unsupported(component: "A guidance that does not look at the prompt", option: "perturbed attention")
    }
    if telling != nil { try checkDegradedRows(steps) }
    if request.forecast != nil, schedule.scheduler.takesVariance {
      throw .unsupported(component: "A scheduler that takes variances", option: "forecasts")
    }
    if request.forecast != nil, schedule.scheduler.order > 1 {
      throw .unsupported(component: "A scheduler that corrects each step by a second prediction", option: "forecasts")
    }
  }

  /// Latents are degraded by a prediction and by the attention of its pass.
  private func checkDegradedRows(_ steps: Int) throws(ComponentError) {
    if schedule.scheduler.takesVariance {
      throw .unsupported(component: "A scheduler that takes variances", option: "self-attention guidance")
    }
    if request.stepCaching != nil {
      throw .unsupported(component: "Step caching", option: "self-attention guidance, which needs the network's middle in each step")
    }
    for step in 0..<steps {
      let rows = guidance.rows(at: step, of: steps)
      guard rows.allSatisfy({ !$0.isDegraded || rows.contains($0.undegraded) }) else {
        throw .missingInput(component: "A guidance by degraded latents", argument: "the row that sees them as they are")
      }
    }
  }

  /// What nobody would look at is an error.
  private func checkReaders(of texts: [Prompt]) throws(ComponentError) {
    if !pipeline.conditioner.readsSecondTexts, texts.contains(where: { $0.second != nil }) {
      throw .unsupported(component: "This model", option: "second text encoder for a second prompt")
    }
    if !pipeline.conditioner.readsMarks, let marked = texts.first(where: { $0.profile != .diffusers }) {
      throw .unsupported(component: "This model", option: "prompts with marks, which the profile \(marked.profile.rawValue) has")
    }
    // Stable Video Diffusion has three other numbers under the same name.
    let areTold = pipeline.predictor.declaredInputs.contains { $0.name == "time_ids" && $0.shape != [3] }
    if !areTold, request.sizes != SizeConditioning() || request.negativeSizes != nil {
      throw .unsupported(component: "This model", option: "inputs for sizes and scores, as Stable Diffusion XL has")
    }
  }

  /// The tokens of the longest text of compel, which all others get; nil where there is none.
  var compelLength: Int? {
    (scripts.values.flatMap { $0.flatMap(\.prompts) } + request.laterPrompts.map(\.prompt)).filter { $0.profile == .compel }
      .compactMap(pipeline.conditioner.length(of:)).max()
  }

  private func checkTensors() throws {
    if let noise = request.noise {
      guard noise.shape == latentShape else {
        throw GenerationError.unexpectedShape(name: "The noise", expected: latentShape.description, found: noise.shape)
      }
      guard noise.isFinite else { throw GenerationError.notFinite(name: "The noise") }
    }
    for (name, rows) in [
      ("The conditioning", request.conditioning?.rows), ("The negative conditioning", request.negativeConditioning?.rows),
    ] {
      guard let rows, ![1, request.prompts.count].contains(rows) else { continue }
      throw GenerationError.outOfRange(name: "\(name)'s number of rows", value: "\(rows)", allowed: "1 or \(request.prompts.count)")
    }
    for (name, tensor) in request.task.inputs where tensor.shape.rank == 0 || tensor.shape[0] < 1 || !count.isMultiple(of: tensor.shape[0])
    {
      throw GenerationError.unexpectedShape(
        name: name, expected: "[N, …] where N divides the \(count) pictures of the request", found: tensor.shape)
    }
  }
}

extension GenerationRequest {
  fileprivate func checkNumbers() throws(GenerationError) {
    guard !prompts.isEmpty else { throw .noPrompts }
    for prompt in prompts + laterPrompts.map(\.prompt) + negativePrompts {
      for text in [prompt.text, prompt.second ?? ""] where text.utf8.count > Self.maximumPromptBytes {
        throw .promptTooLong(bytes: text.utf8.count)
      }
    }
    guard [0, 1, prompts.count].contains(negativePrompts.count) else {
      throw .negativePromptCount(prompts: prompts.count, negativePrompts: negativePrompts.count)
    }
    try checkNumber("The number of images per prompt", imagesPerPrompt, in: 1...Self.maximumPixels)
    try checkNumber("The number of steps", steps, in: 1...100_000)
    try checkNumber("The guidance", guidance, in: 0...1e6)
    try checkNumber("The guidance rescaling", guidanceRescale, in: 0...1)
    try checkGuidanceNumbers()
    try checkNumber("The width", width ?? 1, in: 1...Self.maximumPixels)
    try checkNumber("The height", height ?? 1, in: 1...Self.maximumPixels)
    try checkNumber("The preview interval", previewInterval ?? 1, in: 1...Int.max)
    try checkNumber("The interval of step caching", stepCaching?.interval ?? 1, in: 1...100_000)
    try checkNumber("The order of step caching", stepCaching?.order ?? 0, in: 0...1)
    try checkNumber("The branch of step caching", stepCaching?.branch ?? 0, in: 0...100_000)
    try checkNumber("Token merging", tokenMerging ?? 0, in: Shortcuts.tokenMergingRange)
    try checkNumber("The strength", task.strength, in: 0...1)
    try checkNumber("The start of denoising", denoisingStart ?? 0, in: 0...1)
    try checkNumber("The end of denoising", denoisingEnd ?? 1, in: max(0, denoisingStart ?? 0)...1)
    for sizes in [sizes, negativeSizes].compactMap(\.self) {
      try checkNumber("The aesthetic score", sizes.aestheticScore ?? 0, in: -1000...1000)
    }
  }

  fileprivate func checkImagePrompts(for conditioners: [any ImageConditioner]) throws {
    let (found, expected) = (imagePrompts.count, conditioners.count)
    guard found == expected || found == 0 && !conditioners.contains(where: \.isRequired) else {
      throw GenerationError.imagePromptCount(found: found, expected: expected)
    }
    for (prompt, conditioner) in zip(imagePrompts, conditioners) {
      try checkNumber("The number of pictures of an image prompt", prompt.pictures.count, in: 1...1000)
      try checkNumber("The scale of an image prompt", prompt.scale ?? 1, in: -1000...1000)
      for picture in prompt.pictures {
        try picture.checkPicture("A picture of an image prompt", channels: 3)
        guard picture.shape[0] == 1 else {
          throw GenerationError.unexpectedShape(
            name: "A picture of an image prompt", expected: "[1, height, width, 3]", found: picture.shape)
        }
      }
      try conditioner.check(prompt)
    }
  }

  /// The frames of each clip; nil for pictures.
  fileprivate func frames(for predictor: any NoisePredictor) throws(GenerationError) -> Int? {
    guard let clip = predictor.clip else {
      guard task.frames == .picture, frameWindows == nil else {
        throw .drawsPictures(task: frameWindows == nil ? task.name : "a clip in windows")
      }
      return nil
    }
    let count: Int
    switch task.frames {
    case .picture: throw .drawsClips(task: task.name)
    case .usual: count = clip.usual
    case .count(let asked): count = asked
    }
    try checkNumber("The number of frames", count, in: 1...(frameWindows == nil ? clip.most : Self.maximumPixels))
    // A window fits into the clip, and into a pass.
    if let windows = frameWindows { try checkNumber("The length of a window", windows.length, in: 1...min(count, clip.most)) }
    return count
  }

  /// The size in the model and the size of the result.
  fileprivate func sizes(for pipeline: DiffusionPipeline, frames: Int) throws(GenerationError) -> (PixelSize, PixelSize) {
    let multiple = pipeline.sideMultiple
    let source = try sourceSize(for: pipeline)
    let sides = 1...Self.maximumPixels
    guard sides.contains(source.width), sides.contains(source.height) else {
      throw .imageTooSmall(width: source.width, height: source.height, multiple: multiple)
    }
    // A side of the source fits by itself; a side that was asked for must.
    func fitted(_ side: Int) -> Int { (task.fillsUp ? (side + multiple - 1) : side) / multiple * multiple }
    // The other side of a picture of which one is asked for, in its proportions.
    func proportional(_ other: Int, _ side: Int, to asked: Int) -> Int {
      let exact = Double(other) * Double(asked) / Double(side)
      let most = Double(Self.maximumPixels)
      guard !task.fillsUp else { return max(1, Int(min(exact, most).rounded())) }
      return max(1, Int((min(exact, most) / Double(multiple)).rounded())) * multiple
    }
    var (width, height) = (width, height)
    if task.source(scale: pipeline.autoencoder.spatialScale).isPixels {
      if let asked = width, height == nil { height = proportional(source.height, source.width, to: asked) }
      if let asked = height, width == nil { width = proportional(source.width, source.height, to: asked) }
    }
    let output = PixelSize(width: width ?? source.width, height: height ?? source.height)
    // Sides that follow from the picture's are filled up where it is not to be resampled.
    let size = PixelSize(
      width: self.width ?? width.map { task.fillsUp ? fitted($0) : $0 } ?? fitted(source.width),
      height: self.height ?? height.map { task.fillsUp ? fitted($0) : $0 } ?? fitted(source.height))
    guard size.width > 0, size.height > 0 else {
      throw .imageTooSmall(width: source.width, height: source.height, multiple: multiple)
    }
    guard size.width.isMultiple(of: multiple), size.height.isMultiple(of: multiple) else {
      throw .indivisibleSize(width: size.width, height: size.height, multiple: multiple)
    }
    // `Shape` says `Int.max` where the product does not fit.
    let images = Shape([prompts.count, imagesPerPrompt, frames]).count
    guard Shape([images, size.width, size.height]).count <= Self.maximumPixels else {
      throw .tooLarge(width: size.width, height: size.height, images: images)
    }
    return (size, task.fillsUp ? output : size)
  }

  /// The size of what the task starts from: its picture, or what the model was trained on.
  private func sourceSize(for pipeline: DiffusionPipeline) throws(GenerationError) -> PixelSize {
    let scale = pipeline.autoencoder.spatialScale
    switch task.source(scale: scale) {
    case .nothing:
      if let width, let height { return PixelSize(width: width, height: height) }
      if let size = pipeline.defaultSize { return size }
      guard let sides = pipeline.predictor.sampleSides else { throw .noSize }
      return PixelSize(width: sides.width * scale, height: sides.height * scale)
    case .pixels(let size): return size
    case .latents(let size):
      guard (width ?? size.width) == size.width, (height ?? size.height) == size.height else {
        throw .outOfRange(
          name: "The size", value: "\(width ?? size.width)×\(height ?? size.height)",
          allowed: "\(size.width)×\(size.height), that of the latents")
      }
      return size
    }
  }
}

extension DiffusionPipeline {
  fileprivate func checkChannels(for task: any GenerationTask) throws(GenerationError) {
    let (channels, found) = (autoencoder.latentChannels, predictor.inputChannels)
    let expected = task.inputChannels(latentChannels: channels)
    guard [channels, 2 * channels].contains(predictor.outputChannels) else {
      throw .modelDoesNotFit(
        task: task.name, inputChannels: found,
        expected: "predictions of \(channels) channels, as the autoencoder has, or with their variance of \(2 * channels)")
    }
    guard expected.contains(found) else {
      throw .modelDoesNotFit(task: task.name, inputChannels: found, expected: expected.map(String.init).joined(separator: " or "))
    }
  }
}

/// From a plan to a loop that is ready to run, and from latents to pictures.
extension Plan {
  /// Encodes the prompts and the picture, and draws the noise to start from.
  func loop(in context: ExecutionContext) throws -> DenoisingLoop {
    var preparation = Preparation(self, in: context)
    let pictures = try zip(pipeline.imageConditioners, request.imagePrompts).map {
      try $0.condition($1, drawing: &preparation.noise, in: context)
    }
    let start = try request.task.start(&preparation)
    try check(start)
    let texts = try context.observed(Work(.encodingPrompts)) { try said(beside: pictures, in: context) }
    let predictor = try steered(predictor, preparation, in: context)
    func controlled(_ network: (any NoisePredictor)?) -> any NoisePredictor {
      guard let network else { return predictor }
      return (predictor as? ControlledPredictor)?.over(network) ?? network
    }
    let (perturbed, telling) = (controlled(perturbed), controlled(telling))
    // A second model goes on where the first one was; what starts from a picture begins to count there, as in the webui.
    let origin = request.denoisingStart == nil ? schedule.firstStep : 0
    let passes = try GuidedPasses(guidance, steps: schedule.endStep - schedule.firstStep, saying: texts, from: origin) { rows in
      let own = rows[0].isPerturbed ? perturbed : rows[0].isDegraded ? predictor : telling
      return (own as? ControlledPredictor)?.asked(rows) ?? own
    } completed: { conditioning, rows in
      var conditioning = conditioning
      for (name, tensor) in start.inputs { conditioning.inputs[name] = tensor.repeated(rows) }
      if pipeline.predictor.embedsGuidance { conditioning.guidance = request.guidance }
      try pipeline.predictor.check(conditioning, latents: count)
      return conditioning
    }
    let memory = PassMemory(request.shortcuts, seed: request.seed)
    return DenoisingLoop(
      predictor: predictor, passes: passes, beside: start.beside, restoration: start.restoration,
      firstStep: schedule.firstStep, endStep: schedule.endStep, guidance: guidance, scheduler: schedule.scheduler,
      noise: request.stepGenerator?(request.seed) ?? preparation.noise,
      memories: passes.passes.map { _ in memory }, latents: start.latents, step: schedule.firstStep)
  }

  /// A task of another package may begin with anything.
  private func check(_ start: LoopStart) throws {
    let beside = Shape(latentShape.dimensions.dropLast() + [pipeline.predictor.inputChannels - latentShape.columns])
    let restored = start.restoration.map { [("a mask", $0.mask), ("an original", $0.original), ("noise", $0.noise)] } ?? []
    let all = [("latents", Optional(start.latents), latentShape), ("what is beside the latents", start.beside, beside)]
    for (name, tensor, expected) in all + restored.map({ ($0, Optional($1), latentShape) }) {
      guard let tensor, tensor.shape != expected else { continue }
      throw ComponentError.unexpectedShape(
        component: "The loop", argument: "\(name) for \(request.task.name)", expected: expected.description, found: tensor.shape)
    }
    guard start.beside != nil || beside.columns == 0 else {
      throw ComponentError.missingInput(component: "The loop", argument: "what is beside the latents for \(request.task.name)")
    }
  }

  /// For each text of the guidance its parts, with a row for each picture.
  private func said(beside pictures: [ImageConditioning], in context: ExecutionContext) throws -> [GuidanceRow.Text: [SpokenPart]] {
    phase(.encodingPrompts)
    var said: [GuidanceRow.Text: [SpokenPart]] = [:]
    for text in guidance.rows.map(\.text) where said[text] == nil {
      said[text] = try self.said(text, in: context).map { part in
        let told = try part.told.map { told, _ in
          try pictures.reduce(told) { try $0.adding(text == .negativePrompt ? $1.negative : $1.prompt) }
        }
        return SpokenPart(weights: part.weights, told: told)
      }
    }
    return said
  }

  /// One prompt or conditioning for all pictures is encoded once.
  private func said(_ text: GuidanceRow.Text, in context: ExecutionContext) throws -> [SpokenPart] {
    let isNegative = text == .negativePrompt
    if !request.laterPrompts.isEmpty, !isNegative, let frames {
      return [SpokenPart(try travelling(over: frames, in: context).repeated(count))]
    }
    guard let given = isNegative ? request.negativeConditioning : request.conditioning else {
      let spoken = try spoken(scripts[text] ?? [], isNegative: isNegative, in: context)
      guard !request.laterPrompts.isEmpty, let frames else { return spoken }
      return spoken.map { SpokenPart(weights: $0.weights, told: $0.told.map { told, _ in told.saidOfEachFrame(frames) }) }
    }
    try given.check()
    return [SpokenPart(given.repeated(count / given.rows))]
  }

  /// What the conditioner makes of prompts: a row for each.
  func conditioning(of prompts: [Prompt], isNegative: Bool = false, in context: ExecutionContext) throws -> Conditioning {
    var asked = ConditioningRequest(
      prompts, size: size, isNegative: isNegative, isAbsent: isNegative && request.negativePrompts.isEmpty,
      sizes: request.sizes, negativeSizes: request.negativeSizes,
      startsFromPicture: request.task.source(scale: pipeline.autoencoder.spatialScale) != .nothing)
    (asked.guidance, asked.length) = (request.guidance, compelLength)
    let result = try pipeline.conditioner.condition(asked, in: context)
    try result.check()
    guard result.rows == prompts.count else {
      throw ComponentError.unexpectedRows(component: "The pipeline", rows: result.rows, latents: prompts.count)
    }
    return result
  }

  /// A picture 0…1 in the size of the model's input.
  func fitted(_ image: Tensor) -> Tensor {
    let image = image.resized(to: outputSize, mode: request.resizeMode)
    guard size != outputSize else { return image }
    return image.extended(left: 0, right: size.width - outputSize.width, top: 0, bottom: size.height - outputSize.height)
  }

  /// What the decoder is shown of the picture that belongs to one of the latents; nil if it looks at none.
  private func keptPicture(_ index: Int) -> KeptPicture? {
    guard pipeline.autoencoder.decodesKeptPictures, let kept = request.task.keptPicture(resizeMode: request.resizeMode) else { return nil }
    func own(_ tensor: Tensor) -> Tensor {
      let row = index % tensor.shape[0]
      return fitted(tensor.rows(row..<row + 1))
    }
    return KeptPicture(own(kept.image).centered, new: own(kept.new).binarized())
  }

  /// Decodes one picture of the latents, or some frames of a clip: one, or those that are decoded together.
  /// - Parameter index: of the first among all pictures or frames.
  func images(from index: Int, of latents: Tensor, in context: ExecutionContext) throws -> [GeneratedImage] {
    let (picture, frame) = index.quotientAndRemainder(dividingBy: frames ?? 1)
    let run = min(framesDecodedTogether, (frames ?? 1) - frame), latents = latents.framesAsPictures.rows(index..<index + run)
    var context = context
    phase(.decoding(done: index, count: pictures))
    context.progress = { [phase, pictures] in phase(.decoding(done: index * $1 + run * $0, count: pictures * $1)) }
    let decoded = try context.observed(Work(.decoding, index: index, of: pictures)) { [context] in
      try pipeline.autoencoder.image(
        of: latents, framesOfClip: pipeline.autoencoder.decodesClips, keeping: keptPicture(picture), in: context
      ).cropped(height: outputSize.height, width: outputSize.width)
    }
    return (0..<run).map { place in
      let image = run == 1 ? decoded : decoded.rows(place..<place + 1)
      return GeneratedImage(
        index: picture, frame: frame + place, prompt: request.prompts[picture / request.imagesPerPrompt],
        image: request.task.finished(image, index: picture, size: outputSize, resizeMode: request.resizeMode),
        latents: latents.rows(place..<place + 1), truncations: truncations)
    }
  }
}
