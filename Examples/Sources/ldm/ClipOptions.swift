import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

extension Morph.Easing: @retroactive ExpressibleByArgument {}

/// How clips of many frames are drawn, and what their later frames show.
struct WindowOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      Draws the clip in windows of so many frames that overlap, so that it can have more frames than the motion module was made for. 16 if another option \
      asks for windows.
      """)
  var contextLength: Int?

  @Option(
    parsing: .unconditional,
    help: "Frames from the beginning of a window to that of the next. Without it, three quarters of a window, and 4 with --free-noise.")
  var contextStride: Int?

  @Flag(help: "Lets the last frames share windows with the first ones, so that the clip can be shown again and again without a jump.")
  var closedLoop = false

  @Flag(
    help: """
      Windows of FreeNoise: only the attention of frames to one another goes window by window, and later frames have the noise of earlier ones in another \
      order.
      """)
  var freeNoise = false

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "What the clip shows at a frame, from 1 on; --prompt is frame 0. Between them, texts are interpolated. Give it once for each.",
      valueName: "N=TEXT"),
    transform: PromptAt.init)
  var promptAt: [PromptAt] = []

  /// A prompt of a frame, as it was written.
  struct PromptAt {
    let value: FramePrompt

    init(_ text: String) throws {
      guard let sign = text.firstIndex(of: "="), let frame = Int(text[..<sign]), frame > 0 else {
        throw ValidationError("--prompt-at takes a frame from 1 on and a prompt, as in 8=sunflower, but was given \(text).")
      }
      value = FramePrompt(frame, Prompt(String(text[text.index(after: sign)...])))
    }
  }

  func validate() throws {
    guard !(closedLoop && freeNoise) else { throw ValidationError("Give either --closed-loop or --free-noise.") }
    guard contextLength ?? 1 > 0 else { throw ValidationError("--context-length must be more than 0.") }
    guard contextStride ?? 1 > 0 else { throw ValidationError("--context-stride must be more than 0.") }
  }

  /// Nil where no option asks for any.
  func windows() throws -> FrameWindows? {
    guard contextLength != nil || contextStride != nil || closedLoop || freeNoise else { return nil }
    return try FrameWindows(
      length: contextLength ?? 16, stride: contextStride, method: freeNoise ? .freeNoise : closedLoop ? .loopedPasses : .passes)
  }

  func settings(_ request: GenerationRequest) -> [GenerationParameters.Setting] {
    let windows = request.frameWindows.map { windows in
      [GenerationParameters.Setting("Context length", "\(windows.length)"), .init("Context stride", "\(windows.stride)")]
        + (closedLoop ? [.init("Closed loop", "true")] : freeNoise ? [.init("FreeNoise", "true")] : [])
    }
    return (windows ?? []) + promptAt.map { .init("Prompt at \($0.value.frame)", $0.value.prompt.text) }
  }
}

/// What commands that make clips are told of files.
struct ClipFileOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "Frames a second. Without it, 12 for walks, 7 for clips of a picture and 8 for others.")
  var fps: Double?

  @Option(
    name: [.customShort("o"), .long], parsing: .unconditional,
    help: """
      Where the clip goes: a .webp, .png or .gif file, or .mp4 or .webm, which the program ffmpeg encodes; a folder of numbered PNG files where the name \
      has no extension or ends in a slash. Several clips are numbered: out-1.webp, out-2.webp …
      """)
  var output: String

  @Option(parsing: .unconditional, help: "Of a .webp file, from 0 to 100. Without it, no pixel changes.")
  var quality: Int?

  @Option(
    parsing: .unconditional,
    help: """
      Where the latents of all frames go, as they are before decoding: one tensor latents, float32, [frames, 4, h, w] of a walk, [count, 4, frames, h, w] of \
      other clips.
      """
  )
  var saveLatents: String?

  @Option(
    parsing: .unconditional,
    help:
      "Where the frames go before they are rounded: one tensor image, float32, [frames, H, W, 3] of a walk, [count, frames, H, W, 3] of other clips."
  )
  var saveImageTensor: String?

  func validate() throws {
    try checkFrameRate(fps)
    guard (0...100).contains(quality ?? 0) else { throw ValidationError("--quality must be from 0 to 100.") }
  }

  /// Reports errors before the work begins, not after it.
  func check(count: Int = 1, framesPerSecond: Double) throws { try files.check(count: count, framesPerSecond: framesPerSecond) }

  var files: ClipFiles { ClipFiles(output: output, quality: quality, latents: saveLatents, imageTensor: saveImageTensor) }
}

func checkFrameRate(_ fps: Double?) throws {
  guard Clip.frameRates.contains(fps ?? 1) else {
    throw ValidationError("--fps must be a number from \(Clip.frameRates.lowerBound) to \(Clip.frameRates.upperBound).")
  }
}

/// Where clips go, and tensors of their frames.
struct ClipFiles {
  let output: String
  let quality: Int?
  let latents: String?
  let imageTensor: String?

  /// The file or folder of each clip.
  private func urls(_ count: Int) -> [URL] {
    let url = URL(filePath: output)
    guard count > 1 else { return [url] }
    let folder = url.deletingLastPathComponent(), name = url.deletingPathExtension().lastPathComponent
    let ending = url.pathExtension.isEmpty ? "" : ".\(url.pathExtension)"
    return (1...count).map {
      folder.appending(path: "\(name)-\($0)\(ending)", directoryHint: url.hasDirectoryPath ? .isDirectory : .notDirectory)
    }
  }

  /// The names of the files or folders of clips, for people and other programs.
  func names(_ count: Int) -> [String] { count == 1 ? [output] : urls(count).map(\.relativePath) }

  /// Reports errors before the work begins, not after it.
  func check(count: Int, framesPerSecond: Double) throws {
    if [output, latents, imageTensor].contains("-") {
      throw Failure("A clip cannot go to standard output, nor a tensor; give the name of a file.")
    }
    guard !output.isEmpty else { throw Failure("--output is empty; give the name of a file or of a new folder.") }
    let urls = urls(count), format = try ClipFormat(of: urls[0])
    try format.check(framesPerSecond: framesPerSecond)
    if quality != nil, format != .webp { throw Failure("--quality is for .webp files; leave it out.") }
    for url in urls { if format == .folder { try checkNew(folder: url) } else { try checkWritable(url) } }
    for path in [latents, imageTensor].compactMap(\.self) { try checkWritable(URL(filePath: path)) }
  }

  /// - Throws: a `Failure` if a new folder cannot be made there.
  private func checkNew(folder url: URL) throws {
    let name = url.lastPathComponent, parent = url.deletingLastPathComponent()
    let path = parent.appending(path: name, directoryHint: .notDirectory)
    guard !FileManager.default.fileExists(atPath: path.path(percentEncoded: false)) else {
      throw Failure("\(url.relativePath) exists already; give a name that is not taken.")
    }
    try checkWritable(path)
  }

  /// Encodes clips, and writes all files.
  ///
  /// - Parameters:
  ///   - all: latents as files have them, written where they are asked for.
  ///   - image: as files have them, written where they are asked for.
  /// - Returns: a sentence about what was written.
  func write(_ clips: [Clip], latents all: @autoclosure () -> Tensor, image: @autoclosure () -> Tensor) throws -> String {
    let urls = urls(clips.count), encoded = try zip(clips, urls).map { try $0.encoded(as: ClipFormat(of: $1), quality: quality) }
    try Signals.whole {
      for (clip, url) in zip(encoded, urls) { try clip.write(to: url) }
      if let path = latents { try writeTensor("latents", all(), to: path) }
      if let path = imageTensor { try writeTensor("image", image(), to: path) }
    }
    guard let clip = clips.first else { return "" }
    let count = clip.frames.count
    return "\(names(clips.count).joined(separator: ", ")): \(count) frame\(count == 1 ? "" : "s") of \(clip.width)×\(clip.height), "
      + "\(String(format: "%.1f", clip.duration)) s"
  }
}
