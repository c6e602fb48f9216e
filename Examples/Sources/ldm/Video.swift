import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

/// Clips that a network draws as a whole, and where they go.
struct VideoOptions: DrawnOptions {
  @OptionGroup(title: "Sampling") var seeds: SeedOptions
  @OptionGroup(title: "Frames") var windows: WindowOptions
  @OptionGroup(title: "Output") var file: ClipFileOptions
  @OptionGroup(title: "Output") var keeping: KeepingOptions
  @OptionGroup(title: "Sampling") var like: LikeOptions

  var count: Int { seeds.count }
  var seed: UInt64? { seeds.seed }
  func frameWindows() throws -> FrameWindows? { try windows.windows() }
  var laterPrompts: [FramePrompt] { windows.promptAt.map(\.value) }
}

struct Txt2Video: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "txt2video",
    abstract: "Draws a clip from words, with motion modules (AnimateDiff) or with a text-to-video model (ModelScope).",
    discussion: """
      Example: ldm txt2video --model models/sd15 --motion-module models/motion --prompt "a cat runs" --scheduler ddim --betas linear -o cat.webp
      """)
  @OptionGroup var options: DrawingOptions<PromptOptions, VideoOptions>

  @Option(
    parsing: .unconditional,
    help:
      "Frames of the clip. Without it, 16, or as many as the motion module has positions for. More than those need --context-length."
  )
  var frames: Int?

  @Option(parsing: .unconditional, help: "A picture that the clip begins with.")
  var firstFrame: String?

  @Option(
    parsing: .unconditional,
    help:
      "With --first-frame, the part of the steps that is run, 0…1. Below 1 all frames start from the picture with noise on it. Without it, 1."
  )
  var strength: Double?

  func validate() throws {
    guard frames ?? 1 > 0 else { throw ValidationError("--frames must be more than 0.") }
    try checkStrength(strength)
    if strength != nil, firstFrame == nil { throw ValidationError("--strength goes with --first-frame.") }
  }

  func run() async throws {
    guard let firstFrame else { return try await options.run(TextToVideo(frames: frames)) }
    try await options.run(FirstFrameToVideo(picture(firstFrame).tensor(), frames: frames, strength: strength ?? 1))
  }
}

struct Video2Video: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "video2video",
    abstract:
      "Draws a clip over another one, with motion modules (AnimateDiff) or with a text-to-video model (ModelScope).",
    discussion: """
      Example: ldm video2video --model models/sd15 --motion-module models/motion --prompt "a cat runs" --video clip.webp --strength 0.6 -o cat.webp
      """)
  @OptionGroup var options: DrawingOptions<PromptOptions, VideoOptions>

  @Option(
    parsing: .unconditional,
    help:
      "The clip to start from: an animated WebP, PNG or GIF, or a folder of pictures in the order of their names. --fps is the clip's if left out."
  )
  var video: String?

  @Option(
    name: .customLong("frame"), parsing: .unconditionalSingleValue,
    help: "A picture of the clip to start from; give it once for each frame.")
  var frames: [String] = []

  @Option(
    parsing: .unconditional, help: "How much to change, 0…1: the part of the steps that is run. Without it, as is usual for the model.")
  var strength: Double?

  func validate() throws {
    try checkStrength(strength)
    guard (video == nil) == !frames.isEmpty else { throw ValidationError("Give either --video or --frame for each frame.") }
  }

  func run() async throws {
    let source = try video.map(clip) ?? Clip(frames.map(picture), framesPerSecond: VideoOptions.usualRate)
    let frames = source.tensor()
    try await options.run(
      strength: strength, usualRate: video.flatMap { _ in source.framesPerSecond },
      VideoToVideo(frames.reshaped(Shape([1] + frames.shape.dimensions))))
  }
}

extension VideoOptions {
  /// Frames a second where nobody says how many, as AnimateDiff's examples have.
  static let usualRate = 8.0
}

/// A clip of a file, or the pictures of a folder as its frames.
func clip(_ path: String) throws -> Clip {
  var isFolder: ObjCBool = false
  guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else {
    return try Clip(contentsOf: URL(filePath: path))
  }
  return try Clip(pictures(path), framesPerSecond: VideoOptions.usualRate)
}

/// The pictures of a folder in the order of their names, or the picture of a file.
func pictures(_ path: String) throws -> [Picture] {
  var isFolder: ObjCBool = false
  guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else { return [try picture(path)] }
  let names: [String]
  do { names = try FileManager.default.contentsOfDirectory(atPath: path) } catch { throw Failure("The folder \(path) cannot be read.") }
  let files = names.filter { ["png", "jpg", "jpeg", "webp"].contains(URL(filePath: $0).pathExtension.lowercased()) }.sorted()
  guard !files.isEmpty else { throw Failure("The folder \(path) has no pictures; put the frames there as PNG, JPEG or WebP.") }
  return try files.map { try picture(URL(filePath: path).appending(path: $0).path(percentEncoded: false)) }
}

extension DrawingOptions where Drawn == VideoOptions {
  /// Makes clips and writes them.
  ///
  /// - Parameters:
  ///   - files: the names of the files that the task reads, for the progress.
  ///   - strength: the part of the steps that are run; nil: what is usual for the model.
  ///   - rate: frames a second where none are asked for.
  ///   - settings: that are written into clips.
  func run(
    reading files: [String] = [], strength: Double? = nil, usualRate rate: Double? = nil, settings: [GenerationParameters.Setting] = [],
    _ task: @autoclosure () throws -> any GenerationTask
  ) async throws {
    try prompt.checkIsGiven()
    let fps = drawn.file.fps ?? rate ?? VideoOptions.usualRate
    try drawn.file.check(count: drawn.count, framesPerSecond: fps)
    try drawn.keeping.check()
    guard refining.refiner == nil else { throw Failure("A refiner draws pictures; leave --refiner out for clips.") }
    let progress = Progress(isJSON: drawn.keeping.json)
    do {
      let ready = try await ready(reading: files, strength: strength, loadNoise: drawn.seeds.loadNoise, progress, task())
      if case .count(let frames) = ready.request.task.frames, let rest = ready.request.frameWindows?.incompleteFrames(of: frames), rest > 1
      {
        progress.warn(
          "The last \(rest) frames fill no whole window of FreeNoise and are drawn weaker, as by diffusers; give other --frames.")
      }
      let images = try await images(of: ready, progress)
      progress.begin("Encoding")
      let (sentence, files) = try write(images, ready, framesPerSecond: fps, settings)
      drawn.keeping.forget()
      try progress.end("\(sentence), seed \(ready.request.seed)", files)
    } catch {
      progress.clear()
      throw error
    }
  }

  /// The frames of a clip are pictures in a row.
  private func write(
    _ images: [GeneratedImage], _ ready: Ready, framesPerSecond fps: Double, _ settings: [GenerationParameters.Setting]
  ) throws -> (String, DrawnFiles) {
    let frames = (images.last?.frame ?? 0) + 1, count = images.count / frames
    let clips = try (0..<count).map { index in
      var clip = try Clip(images[index * frames..<(index + 1) * frames].map { Picture($0.image) }, framesPerSecond: fps)
      let batch: [GenerationParameters.Setting] = count == 1 ? [] : [.init("Batch size", "\(count)"), .init("Batch pos", "\(index)")]
      clip.parameters =
        parameters(
          prompt: ready.written, width: clip.width, height: clip.height, request: ready.request, model: ready.model,
          others: settings + batch + [.init("Frames", "\(frames)"), .init("Frames per second", "\(fps)")]
            + drawn.windows.settings(ready.request)
        ).text
      return clip
    }
    func stacked(_ tensors: [Tensor]) -> Tensor {
      let all = Tensor.concatenated(tensors, axis: 0)
      return all.reshaped(Shape([count, frames] + all.shape.dimensions.dropFirst()))
    }
    let files = drawn.file.files
    let sentence = try files.write(
      clips, latents: withChannelsFirst(stacked(images.map(\.latents))), image: stacked(images.map(\.image)))
    let written = DrawnFiles(
      files: files.names(count), width: clips.first?.width ?? 0, height: clips.first?.height ?? 0, frames: frames, seed: ready.request.seed)
    return (sentence, written)
  }
}
