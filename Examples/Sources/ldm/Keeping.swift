import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

/// What becomes of a drawing while it is under way.
struct KeepingOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      A file that holds the drawing after each step, until the picture is written. Where it is there already, the same command goes on from it: after \
      Ctrl-C, a crash or a power cut at most a step is drawn again, and the picture is the same. Frames of a walk that are done lie in files beside it.
      """)
  var checkpoint: String?

  @Flag(help: "Shows in the terminal what the picture looks like so far.")
  var preview = false

  @Flag(help: "Tells the result as one JSON object on standard output, and nothing else there: files, size, seed and seconds.")
  var json = false

  /// - Parameter usesOutput: whether a picture goes to standard output.
  func check(usesOutput: Bool = false) throws {
    if json, usesOutput {
      throw Failure("--json tells the result on standard output, so a picture cannot go there; give --output the name of a file.")
    }
  }

  /// Where a drawing was that did not come to its end.
  struct Kept {
    let checkpoint: Generation.Checkpoint
    let notes: [String: String]
    fileprivate let start: Tensor?

    /// What a seed was that nobody gave.
    var seed: UInt64? { notes["seed"].flatMap(UInt64.init) }

    /// What a pass began with, if the drawing was in it.
    ///
    /// - Parameters:
    ///   - count: pictures of the drawing.
    ///   - channels: of what the pass begins with; nil: any.
    /// - Throws: a `Failure` where the file has something else.
    func start(of pass: String, count: Int, channels: Int? = nil) throws -> Tensor? {
      guard notes["pass"] == pass else { return nil }
      guard let start, start.shape.rank == 4, start.shape[0] == count, start.shape.count > 0, start.isFinite,
        start.shape.columns == channels ?? start.shape.columns, start.shape.rows <= GenerationRequest.maximumPixels
      else { throw Failure("The checkpoint lacks what the pass before has made; delete it to begin anew.") }
      return start
    }
  }

  /// Reads the file; nil where none is asked for, or there is none yet.
  func kept() throws -> Kept? {
    guard let checkpoint else { return nil }
    let url = URL(filePath: checkpoint)
    guard FileManager.default.fileExists(atPath: checkpoint) else {
      try checkWritable(url)
      return nil
    }
    return Kept(
      checkpoint: try Generation.Checkpoint(contentsOf: url), notes: try Generation.Checkpoint.notes(in: url),
      start: try Generation.Checkpoint.tensors(in: url)["start"])
  }

  /// The file of a part of the drawing that is done.
  fileprivate func part(_ index: Int) -> String? { checkpoint.map { "\($0).part\(index + 1)" } }

  /// Removes the files, once the pictures are written.
  /// - Parameter parts: that the drawing had.
  func forget(parts: Int = 0) {
    for path in [checkpoint].compactMap(\.self) + (0..<parts).compactMap(part) { try? FileManager.default.removeItem(atPath: path) }
  }
}

/// A part of a drawing with steps of its own: a checkpoint is of one.
struct DrawingPass {
  /// What tells it from others of the same command.
  var name = "the only one"
  /// What passes before it made, if it begins with that.
  var start: Tensor?
  /// What is drawn beside what all commands say.
  var settings: [GenerationParameters.Setting] = []
  /// Whether phases other than its steps are shown.
  var showsPhases = true
  /// Shows a step; nil: as that of a picture.
  var shows: ((GenerationStep) -> Void)?
}

extension DrawingOptions {
  /// Draws, says how far it is, and warns of what the model does not read.
  func images(of ready: Ready, pass: DrawingPass = DrawingPass(), _ progress: Progress) async throws -> [GeneratedImage] {
    var images: [GeneratedImage] = []
    try await draw(ready, pass, progress) { event in
      if case .image(let image) = event { images.append(image) }
      return true
    }
    return images
  }

  /// The same, but the latents after the last step.
  func latents(of ready: Ready, pass: DrawingPass, _ progress: Progress) async throws -> Tensor {
    var latents = Tensor(shape: [0])
    try await draw(ready, pass, progress) { event in
      guard case .step(let step) = event else { return false }
      latents = step.latents
      return step.index + 1 < step.count
    }
    return latents
  }

  /// - Parameter takes: an event; false where no more is wanted.
  private func draw(_ ready: Ready, _ pass: DrawingPass, _ progress: Progress, takes: (GenerationEvent) -> Bool) async throws {
    let keeping = drawn.keeping, notes = notes(on: ready, pass)
    var request = ready.request
    let preview = keeping.preview ? TerminalPreview() : nil
    if keeping.preview, preview == nil { progress.warn("--preview needs a terminal on standard error, so it shows nothing here.") }
    if preview != nil { request.previewInterval = 1 }
    if let kept = ready.kept { try check(kept.notes, against: notes, in: keeping.checkpoint ?? "") }
    let showsPhases = pass.showsPhases
    var events = try ready.model.pipeline.generate(request, from: ready.kept?.checkpoint, in: ready.context) {
      if showsPhases { progress.phase($0) }
    }.makeAsyncIterator()
    while let event = try await events.next() {
      if case .step(let step) = event {
        for truncation in step.truncations { tell(truncation, progress) }
        if let preview, let picture = step.preview { preview.show(Picture(picture.strip)) }
        if let shows = pass.shows { shows(step) } else { progress.step(step) }
        if let path = keeping.checkpoint, let checkpoint = try events.checkpoint {
          let tensors = pass.start.map { ["start": $0] } ?? [:]
          try Signals.whole { try checkpoint.write(to: URL(filePath: path), notes: notes, tensors: tensors) }
        }
      }
      guard takes(event) else { return }
    }
  }

  /// What a checkpoint is compared by beside what the library compares: the files, and everything that is written into pictures.
  func notes(on ready: Ready, _ pass: DrawingPass) -> [String: String] {
    let files = try? model.files
    let parts = [files?.base].compactMap(\.self) + (files?.parts ?? [:]).sorted { $0.key < $1.key }.map(\.value)
    // Pictures say only the names of these, and two folders can have files of one name.
    let beside = adapters.lora.map(\.path) + adapters.embedding.map(\.path) + [adapters.loraFolder].compactMap(\.self)
    let paths = (parts + beside.map { URL(filePath: $0) }).map { $0.standardizedFileURL.path(percentEncoded: false) }
    let written = parameters(
      prompt: ready.written, width: ready.request.width ?? 0, height: ready.request.height ?? 0, request: ready.request, model: ready.model,
      others: pass.settings)
    return [
      "pass": pass.name, "seed": "\(ready.request.seed)", "model": paths.joined(separator: "\n"), "parameters": written.text,
      "content": ready.model.pipeline.content?.description ?? "", "networks": (try? networks.description) ?? "",
    ]
  }

  /// Stands for the files of networks that are beside the model, which its own content does not tell of.
  private var networks: ContentHash {
    get throws {
      let roots = controls.files + [imagePrompts.files?.encoder].compactMap(\.self)
      return try ContentHash(sampling: roots.flatMap { try filesOfFolder(at: $0) })
    }
  }

  /// - Throws: a `Failure` where a checkpoint belongs to another command.
  private func check(_ kept: [String: String], against notes: [String: String], in path: String) throws {
    guard kept != notes else { return }
    let (old, new) = (GenerationParameters(parsing: kept["parameters"] ?? ""), GenerationParameters(parsing: notes["parameters"] ?? ""))
    let own = kept["model"]?.split(separator: "\n").joined(separator: " with ")
    var difference = "it is of another kind of drawing, or in another part of it"
    if kept["networks"] != notes["networks"] { difference = "the networks beside its model were others" }
    if kept["content"] != notes["content"] {
      difference = "the files of its model or adapters were replaced since, or weights are held in another form"
    }
    if kept["model"] != notes["model"] { difference = "its model is \(own ?? "another one")" }
    if old.prompt != new.prompt || old.negativePrompt != new.negativePrompt { difference = "its prompts are others" }
    for name in (old.settings + new.settings).map(\.name) where old[name] != new[name] {
      difference = "its \(name) is \(old[name] ?? "not given") and not \(new[name] ?? "left out")"
    }
    throw Failure("\(path) is the checkpoint of another command: \(difference). Delete it to begin anew, or give another --checkpoint.")
  }
}

/// Parts of a drawing that are done: each is a file beside the checkpoint.
extension DrawingOptions {
  /// A part that another process has drawn; nil where there is none.
  /// - Returns: latents `[N, h, w, C]` and pictures `[N, H, W, 3]`.
  func keptPart(_ index: Int, of ready: Ready, _ notes: [String: String]) throws -> (latents: Tensor, image: Tensor)? {
    guard let path = drawn.keeping.part(index), FileManager.default.fileExists(atPath: path) else { return nil }
    let file = try SafetensorsFile(URL(filePath: path))
    try check(file.metadata, against: notes, in: path)
    let pipeline = ready.model.pipeline, shape = try pipeline.latentShape(for: ready.request), scale = pipeline.autoencoder.spatialScale
    func tensor(_ name: String, _ shape: Shape) throws -> Tensor {
      guard let tensor = try? file.tensor(name, shape: shape).decoded(), tensor.isFinite else {
        throw Failure("\(path) is damaged; delete it to draw that part again.")
      }
      return tensor
    }
    return (try tensor("latents", shape), try tensor("image", [shape[0], shape[1] * scale, shape[2] * scale, 3]))
  }

  /// Keeps a part that is done.
  func keepPart(_ index: Int, _ images: [GeneratedImage], _ notes: [String: String]) throws {
    guard let path = drawn.keeping.part(index) else { return }
    let tensors = [
      "latents": Tensor.concatenated(images.map(\.latents), axis: 0), "image": Tensor.concatenated(images.map(\.image), axis: 0),
    ]
    try Signals.whole { try SafetensorsWriter.write(tensors, metadata: notes, to: URL(filePath: path)) }
  }
}

/// A file itself, or those of a folder, sorted.
private func filesOfFolder(at url: URL) throws -> [URL] {
  let path = url.path(percentEncoded: false)
  var isFolder: ObjCBool = false
  guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else { return [url] }
  return try FileManager.default.contentsOfDirectory(atPath: path).sorted().map { url.appending(path: $0) }
    .filter { FileManager.default.fileExists(atPath: $0.path(percentEncoded: false), isDirectory: &isFolder) && !isFolder.boolValue }
}

extension Tensor {
  /// What a preview shows: the pictures of `[N, h, w, C]`, or the frames of the first clip of `[N, F, h, w, C]`, side by side. Of many, eight that are evenly
  /// spread.
  var strip: Tensor {
    let shown = shape.rank == 5 ? rows(0..<1).reshaped(Shape(Array(shape.dimensions.dropFirst()))) : self
    let count = shown.shape[0], most = min(count, 8)
    let pictures = (0..<most).map { index in
      let place = index * count / most
      return shown.rows(place..<place + 1)
    }
    return Tensor.concatenated(pictures, axis: 2)
  }
}
