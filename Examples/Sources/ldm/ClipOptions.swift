import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

extension Morph.Easing: @retroactive ExpressibleByArgument {}

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
    guard Clip.frameRates.contains(fps ?? 1) else {
      throw ValidationError("--fps must be a number from \(Clip.frameRates.lowerBound) to \(Clip.frameRates.upperBound).")
    }
    guard (0...100).contains(quality ?? 0) else { throw ValidationError("--quality must be from 0 to 100.") }
  }

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

  /// Reports errors before the work begins, not after it.
  func check(count: Int = 1, framesPerSecond: Double) throws {
    if [output, saveLatents, saveImageTensor].contains("-") {
      throw Failure("A clip cannot go to standard output, nor a tensor; give the name of a file.")
    }
    guard !output.isEmpty else { throw Failure("--output is empty; give the name of a file or of a new folder.") }
    let urls = urls(count), format = try ClipFormat(of: urls[0])
    try format.check(framesPerSecond: framesPerSecond)
    if quality != nil, format != .webp { throw Failure("--quality is for .webp files; leave it out.") }
    for url in urls { if format == .folder { try checkNew(folder: url) } else { try checkWritable(url) } }
    for path in [saveLatents, saveImageTensor].compactMap(\.self) { try checkWritable(URL(filePath: path)) }
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
  ///   - latents: as files have them, written where they are asked for.
  ///   - image: as files have them, written where they are asked for.
  /// - Returns: a sentence about what was written.
  func write(_ clips: [Clip], latents: @autoclosure () -> Tensor, image: @autoclosure () -> Tensor) throws -> String {
    let urls = urls(clips.count), encoded = try zip(clips, urls).map { try $0.encoded(as: ClipFormat(of: $1), quality: quality) }
    try Signals.whole {
      for (clip, url) in zip(encoded, urls) { try clip.write(to: url) }
      if let path = saveLatents { try writeTensor("latents", latents(), to: path) }
      if let path = saveImageTensor { try writeTensor("image", image(), to: path) }
    }
    guard let clip = clips.first else { return "" }
    let names = clips.count == 1 ? [output] : urls.map(\.relativePath), count = clip.frames.count
    return "\(names.joined(separator: ", ")): \(count) frame\(count == 1 ? "" : "s") of \(clip.width)×\(clip.height), "
      + "\(String(format: "%.1f", clip.duration)) s"
  }
}
