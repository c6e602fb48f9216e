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
      Ctrl-C, a crash or a power cut at most a step is drawn again, and the picture is the same.
      """)
  var checkpoint: String?

  @Flag(help: "Shows in the terminal what the picture looks like so far.")
  var preview = false

  @Flag(help: "Tells the result as one JSON object on standard output, and nothing else there: files, size, seed and seconds.")
  var json = false

  /// Of commands that have no such options. Every property needs a value: none has been read from a command line.
  static var none: KeepingOptions {
    var options = KeepingOptions()
    (options.checkpoint, options.preview, options.json) = (nil, false, false)
    return options
  }

  /// - Parameter usesOutput: whether a picture goes to standard output.
  func check(refiner: String?, usesOutput: Bool = false) throws {
    if json, usesOutput {
      throw Failure("--json tells the result on standard output, so a picture cannot go there; give --output the name of a file.")
    }
    if checkpoint != nil, refiner != nil {
      throw Failure("A checkpoint is of one model's steps, so it does not go with --refiner; leave one of them out.")
    }
  }

  /// Where a drawing was that did not come to its end.
  struct Kept {
    let checkpoint: Generation.Checkpoint
    let notes: [String: String]

    /// What a seed was that nobody gave.
    var seed: UInt64? { notes["seed"].flatMap(UInt64.init) }
  }

  /// Reads the file; nil where none is asked for, or there is none yet.
  func kept() throws -> Kept? {
    guard let checkpoint else { return nil }
    let url = URL(filePath: checkpoint)
    guard FileManager.default.fileExists(atPath: checkpoint) else {
      try checkWritable(url)
      return nil
    }
    return Kept(checkpoint: try Generation.Checkpoint(contentsOf: url), notes: try Generation.Checkpoint.notes(in: url))
  }

  /// Removes the file, once the pictures are written.
  func forget() {
    if let checkpoint { try? FileManager.default.removeItem(atPath: checkpoint) }
  }
}

extension DrawingOptions {
  /// Draws, says how far it is, and warns of what the model does not read.
  func images(of ready: Ready, _ progress: Progress) async throws -> [GeneratedImage] {
    var request = ready.request, images: [GeneratedImage] = []
    let preview = drawn.keeping.preview ? TerminalPreview() : nil
    if drawn.keeping.preview, preview == nil { progress.warn("--preview needs a terminal on standard error, so it shows nothing here.") }
    if preview != nil { request.previewInterval = 1 }
    let notes = notes(on: ready)
    if let kept = ready.kept { try check(kept, notes) }
    var events = try ready.model.pipeline.generate(request, from: ready.kept?.checkpoint, in: ready.context) { progress.phase($0) }
      .makeAsyncIterator()
    var isFirst = true
    while let event = try await events.next() {
      switch event {
      case .step(let step):
        if isFirst { for truncation in step.truncations { tell(truncation, progress) } }
        isFirst = false
        if let preview, let picture = step.preview { preview.show(Picture(picture.strip)) }
        progress.step(step)
        if let path = drawn.keeping.checkpoint, let checkpoint = try events.checkpoint {
          try Signals.whole { try checkpoint.write(to: URL(filePath: path), notes: notes) }
        }
      case .image(let image): images.append(image)
      }
    }
    return images
  }

  /// What a checkpoint is compared by beside what the library compares: the model, and everything that is written into pictures.
  private func notes(on ready: Ready) -> [String: String] {
    let files = try? model.files
    let parts = [files?.base].compactMap(\.self) + (files?.parts ?? [:]).sorted { $0.key < $1.key }.map(\.value)
    // Pictures say only the names of these, and two folders can have files of one name.
    let beside = adapters.lora.map(\.path) + adapters.embedding.map(\.path) + [adapters.loraFolder].compactMap(\.self)
    let paths = (parts + beside.map { URL(filePath: $0) }).map { $0.standardizedFileURL.path(percentEncoded: false) }
    let written = parameters(
      prompt: ready.written, width: ready.request.width ?? 0, height: ready.request.height ?? 0, request: ready.request, model: ready.model,
      others: [])
    return ["seed": "\(ready.request.seed)", "model": paths.joined(separator: "\n"), "parameters": written.text]
  }

  /// - Throws: a `Failure` where a checkpoint belongs to another command.
  private func check(_ kept: KeepingOptions.Kept, _ notes: [String: String]) throws {
    guard kept.notes != notes else { return }
    let (old, new) = (
      GenerationParameters(parsing: kept.notes["parameters"] ?? ""), GenerationParameters(parsing: notes["parameters"] ?? "")
    )
    let own = kept.notes["model"]?.split(separator: "\n").joined(separator: " with ")
    var difference = "its model is \(own ?? "another one")"
    if old.prompt != new.prompt || old.negativePrompt != new.negativePrompt { difference = "its prompts are others" }
    for name in (old.settings + new.settings).map(\.name) where old[name] != new[name] {
      difference = "its \(name) is \(old[name] ?? "not given") and not \(new[name] ?? "left out")"
    }
    throw Failure(
      "\(drawn.keeping.checkpoint ?? "") is the checkpoint of another command: \(difference). Delete it to begin anew, or give another --checkpoint."
    )
  }
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
