import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

/// The prompts of a walk.
struct MorphWords: WordOptions {
  @Option(
    name: [.customShort("p"), .long], parsing: .unconditionalSingleValue,
    help: "What to draw at a keyframe: one for each, in their order, or one for all.")
  var prompt: [String]

  @Option(
    name: .customLong("prompt-2"), parsing: .unconditionalSingleValue,
    help: "SDXL: what the second text encoder reads at a keyframe: one for each, in their order, or one for all. Without it, the prompt.")
  var seconds: [String] = []

  @Option(parsing: .unconditional, help: "What to stay away from.")
  var negativePrompt: String?

  @Option(
    name: .customLong("negative-prompt-2"), parsing: .unconditional,
    help: "SDXL: what the second text encoder reads of the negative prompt. Without it, the negative prompt.")
  var negativePrompt2: String?

  @OptionGroup var reading: ReadingOptions
  var profile: PromptProfile { reading.profile }
  var clipSkip: Int { reading.clipSkip }

  /// The first one, which decides on what is the same for all.
  func text() -> String { prompt.first ?? "" }
  var prompt2: String? { seconds.first }

  var settings: [GenerationParameters.Setting] {
    [("Prompt 2", seconds.isEmpty ? nil : seconds.joined(separator: ", ")), ("Negative prompt 2", negativePrompt2)]
      .compactMap { name, text in text.map { .init(name, $0) } }
  }

  func validate() throws { try checkBesidePrompts() }

  /// One for each keyframe, or one for all.
  ///
  /// - Parameter like: the first one, as the model reads it; nil: none is for a model.
  /// - Throws: a `ValidationError` where the texts for both encoders do not fit one another.
  func prompts(like first: Prompt? = nil) throws -> [Prompt] {
    let texts = [first?.text ?? text()] + prompt.dropFirst(), count = max(texts.count, seconds.count)
    guard [1, count].contains(texts.count), [0, 1, count].contains(seconds.count) else {
      throw ValidationError(
        "--prompt is given \(texts.count) times and --prompt-2 \(seconds.count) times; give one for each keyframe, or one for all.")
    }
    return (0..<count).map {
      var own = first ?? ""
      own.text = texts[min($0, texts.count - 1)]
      own.second = seconds.isEmpty ? nil : seconds[min($0, seconds.count - 1)]
      return own
    }
  }
}

/// The frames of a walk.
struct MorphOptions: DrawnOptions {
  @Option(
    name: .customLong("seed"), parsing: .unconditionalSingleValue,
    help: "Everything random follows from it: one for each keyframe, or one for all. Without it, a random one for all, which is printed.",
    transform: SeedOptions.parsed)
  var seeds: [UInt64] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: "When a keyframe is reached, in seconds: one for each, ascending. Without it, they are evenly spread over the frames.")
  var at: [Double] = []

  @Option(parsing: .unconditional, help: "Frames of the clip. Without it, as many as --at and --fps need, or 48.")
  var frames: Int?

  @Flag(
    help: "Goes back to the first keyframe after the last, so that the clip has no jump. What is drawn on the way there is shown twice.")
  var pingPong = false

  @Option(
    parsing: .unconditional,
    help: "How the way between two keyframes is gone: \(Morph.Easing.allCases.map(\.rawValue).joined(separator: ", ")).")
  var easing = Morph.Easing.linear

  @Option(
    parsing: .unconditional,
    help: "Frames that are drawn in the same passes, which is faster with small models, takes more memory and changes last bits.")
  var batchSize = 1

  @OptionGroup(title: "Output") var file: ClipFileOptions
  @OptionGroup(title: "Output") var keeping: KeepingOptions

  var count: Int { batchSize }
  var fps: Double { file.fps ?? 12 }
  var seed: UInt64? { seeds.first }

  static let mostFrames = 10_000

  func validate() throws {
    guard (1...Self.mostFrames).contains(frames ?? 1) else { throw ValidationError("--frames must be from 1 to \(Self.mostFrames).") }
    guard (1...1000).contains(batchSize) else { throw ValidationError("--batch-size must be from 1 to 1000.") }
    guard frames == nil || at.isEmpty else {
      throw ValidationError("Give either --frames or --at: with --fps, times say how many frames there are.")
    }
    guard at.allSatisfy({ (0...1e6).contains($0) }), zip(at, at.dropFirst()).allSatisfy(<) else {
      throw ValidationError("--at must be numbers of seconds from 0 to 1000000, each larger than the one before.")
    }
    guard at.isEmpty || at.count > 1 else { throw ValidationError("--at must be given for each keyframe.") }
    guard frameCount <= Self.mostFrames else {
      throw ValidationError("--at and --fps ask for \(frameCount) frames; the most are \(Self.mostFrames).")
    }
  }

  /// Frames of the clip: the last one is at the last time, or, on the way back, one before the first.
  var frameCount: Int {
    guard let start = at.first, let end = at.last else { return frames ?? 48 }
    let exact = ((end - start) * fps).rounded()
    // What cannot be a number of frames is told where it is checked.
    let steps = (1...1e9).contains(exact) ? Int(exact) : 1
    return pingPong ? 2 * steps : steps + 1
  }

  /// - Throws: a `ValidationError` where prompts, seeds and times do not fit one another.
  func morph(_ prompts: [Prompt], seed: UInt64) throws -> Morph {
    let count = max(prompts.count, seeds.count, at.count)
    guard count > 1 else { throw ValidationError("A walk has at least two keyframes: give --prompt or --seed more than once.") }
    for (name, given) in [("--prompt", prompts.count), ("--seed", seeds.count), ("--at", at.count)] where given > 1 && given != count {
      throw ValidationError("There are \(count) keyframes and \(name) is given \(given) times; give one for each keyframe, or one for all.")
    }
    return try Morph(
      (0..<count).map { index in
        Morph.Keyframe(
          prompts[min(index, prompts.count - 1)], seed: seeds.isEmpty ? seed : seeds[min(index, seeds.count - 1)],
          time: at.isEmpty ? Double(index) : at[index])
      }, easing: easing, isPingPong: pingPong)
  }

  /// The settings that are written into clips.
  var settings: [GenerationParameters.Setting] {
    func list(_ values: [some CustomStringConvertible]) -> String { values.map(\.description).joined(separator: ", ") }
    var all = [("Frames", "\(frameCount)"), ("Frames per second", "\(fps)"), ("Easing", easing.rawValue)]
    if seeds.count > 1 { all.append(("Seeds", list(seeds))) }
    if !at.isEmpty { all.append(("Times", list(at))) }
    if pingPong { all.append(("Ping-pong", "yes")) }
    if batchSize > 1 { all.append(("Batch size", "\(batchSize)")) }
    return all.map { .init($0, $1) }
  }
}

struct MorphCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "morph", abstract: "Draws a clip that walks between prompts and between seeds.",
    discussion: """
      At a keyframe stands the picture that ldm txt2img draws of its prompt and seed. Between two, noise is interpolated on a sphere, and what the text \
      encoder says on a straight line.

      Example: ldm morph --prompt "red apple" --prompt sunflower --seed 0 --frames 48 --ping-pong -o walk.webp
      """)
  @OptionGroup var options: DrawingOptions<MorphWords, MorphOptions>

  func validate() throws {
    guard options.refining.refiner == nil else { throw ValidationError("ldm morph takes no --refiner.") }
    _ = try options.drawn.morph(options.prompt.prompts(), seed: 0)
  }

  func run() async throws {
    let drawn = options.drawn, words = options.prompt
    try drawn.file.check(framesPerSecond: drawn.fps)
    for prompt in words.prompt.dropFirst() { try options.adapters.checkNone(in: ["a --prompt after the first": prompt]) }
    for prompt in words.seconds.dropFirst() { try options.adapters.checkNone(in: ["--prompt-2": prompt]) }
    let progress = Progress(isJSON: drawn.keeping.json)
    do {
      var ready = try await options.ready(progress, TextToImage())
      ready.written = words.prompt.joined(separator: "\n")
      let morph = try drawn.morph(words.prompts(like: ready.request.prompts.first), seed: ready.request.seed)
      let walk = try await ready.model.pipeline.walk(morph, frames: drawn.frameCount, like: ready.request, in: ready.context)
      for truncation in walk.truncations { options.tell(truncation, progress) }
      let drawings = try await drawings(of: walk, ready, progress)
      let frames = walk.frames.map { drawings[$0] }
      progress.begin("Encoding the clip")
      var clip = try Clip(frames.map(\.picture), framesPerSecond: drawn.fps)
      clip.parameters =
        options.parameters(
          prompt: ready.written, width: clip.width, height: clip.height, request: ready.request, model: ready.model,
          others: drawn.settings
        ).text
      let seeds = drawn.seeds.isEmpty ? [ready.request.seed] : drawn.seeds
      let written = try drawn.file.files.write(
        [clip], latents: withChannelsFirst(Tensor.concatenated(frames.map(\.latents), axis: 0)),
        image: Tensor.concatenated(frames.compactMap(\.image), axis: 0))
      drawn.keeping.forget(parts: walk.batches(of: drawn.batchSize).count)
      try progress.end(
        "\(written), seed\(seeds.count == 1 ? "" : "s") \(seeds.map(\.description).joined(separator: ", "))",
        DrawnFiles(
          files: drawn.file.files.names(1), width: clip.width, height: clip.height, frames: clip.frames.count, seed: ready.request.seed))
    } catch {
      progress.clear()
      throw error
    }
  }

  /// What is kept of a picture: with many frames, tensors of pixels would fill the memory.
  private struct Drawing {
    let picture: Picture
    let latents: Tensor
    /// Nil unless it is asked for.
    let image: Tensor?
  }

  /// Every picture of the walk, each once.
  private func drawings(
    of walk: MorphWalk, _ ready: DrawingOptions<MorphWords, MorphOptions>.Ready, _ progress: Progress
  ) async throws -> [Drawing] {
    var drawings: [Drawing] = [], ready = ready
    let batches = walk.batches(of: options.drawn.batchSize), keepsImages = options.drawn.file.saveImageTensor != nil
    func add(_ latents: Tensor, _ image: Tensor) {
      drawings += (0..<image.shape[0]).map {
        Drawing(
          picture: Picture(image, index: $0), latents: latents.rows($0..<$0 + 1), image: keepsImages ? image.rows($0..<$0 + 1) : nil)
      }
    }
    for (index, batch) in batches.enumerated() {
      ready.request = try walk.request(batch)
      // What is not of the steps is short after the first batch, and the time that is left counts from its first step.
      let pass = DrawingPass(name: "frames from \(batch.lowerBound + 1)", settings: options.drawn.settings, showsPhases: index == 0) {
        progress.frames(batch, of: walk.places.count, batch: index, of: batches.count, $0)
      }
      let notes = options.notes(on: ready, pass)
      if let part = try options.keptPart(index, of: ready, notes) {
        add(part.latents, part.image)
      } else {
        // The steps of a part that is done are of no use to the next one.
        if index > 0, ready.kept?.notes["pass"] != pass.name { ready.kept = nil }
        let images = try await options.images(of: ready, pass: pass, progress)
        try options.keepPart(index, images, notes)
        for image in images { add(image.latents, image.image) }
        ready.kept = nil
      }
    }
    return drawings
  }
}
