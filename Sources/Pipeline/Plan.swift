import LatentDiffusionComponents
import Tensor

/// A request that was found possible, with everything decided that can be decided without computing.
struct Plan: Sendable {
  let pipeline: DiffusionPipeline
  let request: GenerationRequest
  let schedule: Schedule
  /// Of the pictures that go through the model.
  let size: PixelSize
  /// Of the pictures that come out; smaller where the model's input was filled up.
  let outputSize: PixelSize
  /// What the text encoder does not read of the prompts.
  let truncations: [PromptTruncation]
  /// Told what is under way.
  let phase: @Sendable (GenerationPhase) -> Void

  var count: Int { request.prompts.count * request.imagesPerPrompt }

  var latentShape: Shape {
    let scale = pipeline.autoencoder.spatialScale
    return [count, size.height / scale, size.width / scale, pipeline.autoencoder.latentChannels]
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
    (size, outputSize) = try request.sizes(for: pipeline)
    (self.pipeline, self.request, self.phase) = (pipeline, request, phase)
    schedule = try pipeline.schedule(request.steps, request.task)
    guard (0..<schedule.scheduler.timesteps.count).contains(schedule.firstStep), request.task.hasSteps(of: request.steps) else {
      throw GenerationError.noStepsLeft(steps: request.steps, strength: request.task.strength)
    }
    // Each text once, in the order of the request; without guidance nobody looks at the negative ones.
    var texts = request.prompts
    if request.guidance > 1, !pipeline.predictor.embedsGuidance { texts += request.negativePrompts }
    truncations = texts.enumerated().filter { texts.firstIndex(of: $1) == $0 }.compactMap { pipeline.conditioner.truncation(of: $1) }
    try pipeline.checkChannels(for: request.task)
    try pipeline.predictor.check(request.shortcuts)
    try checkTensors()
    try pipeline.admission?(extent)
  }

  private var extent: GenerationExtent {
    GenerationExtent(size: size, images: count, rowsPerImage: guidance.rows, encodesPicture: request.task.startsFromPixels)
  }

  private func checkTensors() throws {
    if let noise = request.noise {
      guard noise.shape == latentShape else {
        throw GenerationError.unexpectedShape(name: "The noise", expected: latentShape.description, found: noise.shape)
      }
      guard noise.isFinite else { throw GenerationError.notFinite(name: "The noise") }
    }
    for (name, tensor) in request.task.inputs where !count.isMultiple(of: tensor.shape[0]) {
      throw GenerationError.unexpectedShape(
        name: name, expected: "[N, …] where N divides the \(count) pictures of the request", found: tensor.shape)
    }
  }
}

extension GenerationTask {
  /// Whether a strength leaves any of the steps. A scheduler may make more timesteps than steps (PNDM), of which one is left at a strength of 0:
  /// diffusers' image-to-image then runs that one, its inpainting refuses.
  fileprivate func hasSteps(of steps: Int) -> Bool {
    guard case .inpaint(let inpainting) = self else { return true }
    return Double(steps) * inpainting.strength >= 1
  }

  /// The tensors with their names in errors.
  var inputs: [(String, Tensor)] {
    switch self {
    case .textToImage: []
    case .imageToImage(.pixels(let image), _), .edit(let image, _): [("The image", image)]
    case .imageToImage(.latents(let latents), _): [("The latents", latents)]
    case .inpaint(let inpainting): [("The image", inpainting.image), ("The mask", inpainting.mask)]
    }
  }

  /// Whether a picture of pixels is given.
  var startsFromPixels: Bool {
    switch self {
    case .textToImage, .imageToImage(.latents, _): false
    case .imageToImage(.pixels, _), .inpaint, .edit: true
    }
  }

  /// A picture that does not fit the model is filled up instead of resampled.
  var fillsUp: Bool {
    if case .inpaint(let inpainting) = self { inpainting.keepsPixelsOutsideMask } else { false }
  }
}

extension GenerationRequest {
  fileprivate func checkNumbers() throws(GenerationError) {
    guard !prompts.isEmpty else { throw .noPrompts }
    for prompt in prompts + negativePrompts where prompt.text.utf8.count > Self.maximumPromptBytes {
      throw .promptTooLong(bytes: prompt.text.utf8.count)
    }
    guard [0, 1, prompts.count].contains(negativePrompts.count) else {
      throw .negativePromptCount(prompts: prompts.count, negativePrompts: negativePrompts.count)
    }
    try check("The number of images per prompt", imagesPerPrompt, in: 1...Self.maximumPixels)
    try check("The number of steps", steps, in: 1...100_000)
    try check("The guidance", guidance, in: 0...1e6)
    try check("The guidance rescaling", guidanceRescale, in: 0...1)
    try check("The width", width ?? 1, in: 1...Self.maximumPixels)
    try check("The height", height ?? 1, in: 1...Self.maximumPixels)
    try check("The preview interval", previewInterval ?? 1, in: 1...Int.max)
    try check("The interval of step caching", stepCaching?.interval ?? 1, in: 1...100_000)
    try check("The branch of step caching", stepCaching?.branch ?? 0, in: 0...100_000)
    try check("Token merging", tokenMerging ?? 0, in: Shortcuts.tokenMergingRange)
    try check("The strength", task.strength, in: 0...1)
    if case .edit(_, let imageGuidance) = task { try check("The image guidance", imageGuidance, in: 0...1e6) }
  }

  private func check<Number: Comparable>(_ name: String, _ value: Number, in range: ClosedRange<Number>) throws(GenerationError) {
    // Not a number is contained nowhere.
    guard range.contains(value) else {
      throw .outOfRange(name: name, value: "\(value)", allowed: "from \(range.lowerBound) to \(range.upperBound)")
    }
  }

  /// The size in the model and the size of the result.
  fileprivate func sizes(for pipeline: DiffusionPipeline) throws(GenerationError) -> (PixelSize, PixelSize) {
    let multiple = pipeline.sideMultiple
    let source = try sourceSize(for: pipeline)
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
    if task.startsFromPixels {
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
    let images = Shape([prompts.count, imagesPerPrompt]).count
    guard Shape([images, size.width, size.height]).count <= Self.maximumPixels else {
      throw .tooLarge(width: size.width, height: size.height, images: images)
    }
    return (size, task.fillsUp ? output : size)
  }

  /// The size of what the task starts from: its picture, or what the model was trained on.
  private func sourceSize(for pipeline: DiffusionPipeline) throws(GenerationError) -> PixelSize {
    let scale = pipeline.autoencoder.spatialScale
    switch task {
    case .textToImage:
      if let width, let height { return PixelSize(width: width, height: height) }
      if let size = pipeline.defaultSize { return size }
      guard let sides = pipeline.predictor.sampleSides else { throw .noSize }
      return PixelSize(width: sides.width * scale, height: sides.height * scale)
    case .imageToImage(.latents(let latents), _):
      try latents.checkPicture("The latents", channels: pipeline.autoencoder.latentChannels)
      let size = PixelSize(width: latents.shape[2] * scale, height: latents.shape[1] * scale)
      guard (width ?? size.width) == size.width, (height ?? size.height) == size.height else {
        throw .unexpectedShape(name: "The latents", expected: "\(height ?? 0)×\(width ?? 0) pixels", found: latents.shape)
      }
      return size
    case .imageToImage(.pixels(let image), _), .edit(let image, _):
      try image.checkPicture("The image", channels: 3)
      return PixelSize(width: image.shape[2], height: image.shape[1])
    case .inpaint(let inpainting):
      let (image, mask) = (inpainting.image, inpainting.mask)
      try image.checkPicture("The image", channels: 3)
      try mask.checkPicture("The mask", channels: 1)
      guard [1, image.shape[0]].contains(mask.shape[0]) else {
        throw .unexpectedShape(name: "The mask", expected: "[1 or \(image.shape[0]), height, width, 1]", found: mask.shape)
      }
      return PixelSize(width: image.shape[2], height: image.shape[1])
    }
  }
}

extension DiffusionPipeline {
  fileprivate func checkChannels(for task: GenerationTask) throws(GenerationError) {
    let (channels, found) = (autoencoder.latentChannels, predictor.inputChannels)
    let (name, expected): (String, [Int]) =
      switch task {
      case .textToImage: ("text-to-image", [channels])
      case .imageToImage: ("image-to-image", [channels])
      case .inpaint: ("inpainting", [channels, 2 * channels + 1])
      case .edit: ("instruction editing", [2 * channels])
      }
    guard predictor.outputChannels == channels else {
      throw .modelDoesNotFit(task: name, inputChannels: found, expected: "predictions of \(channels) channels, as the autoencoder has")
    }
    guard expected.contains(found) else {
      throw .modelDoesNotFit(task: name, inputChannels: found, expected: expected.map(String.init).joined(separator: " or "))
    }
  }
}
