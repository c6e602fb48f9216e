import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

extension Morph.Easing: @retroactive ExpressibleByArgument {}

/// What commands that make clips are told of files.
struct ClipFileOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "Frames a second.")
  var fps = 12.0

  @Option(
    name: [.customShort("o"), .long], parsing: .unconditional,
    help: """
      Where the clip goes: a .webp, .png or .gif file, or .mp4 or .webm, which the program ffmpeg encodes; a folder of numbered PNG files where the name \
      has no extension or ends in a slash.
      """)
  var output: String

  @Option(parsing: .unconditional, help: "Of a .webp file, from 0 to 100. Without it, no pixel changes.")
  var quality: Int?

  @Option(
    parsing: .unconditional,
    help: "Where the latents of all frames go, as they are before decoding: one tensor latents, float32, [frames, 4, h, w].")
  var saveLatents: String?

  @Option(
    parsing: .unconditional,
    help: "Where the frames go before they are rounded: one tensor image, float32, [frames, H, W, 3], 0…1.")
  var saveImageTensor: String?

  func validate() throws {
    guard Clip.frameRates.contains(fps) else {
      throw ValidationError("--fps must be a number from \(Clip.frameRates.lowerBound) to \(Clip.frameRates.upperBound).")
    }
    guard (0...100).contains(quality ?? 0) else { throw ValidationError("--quality must be from 0 to 100.") }
  }

  /// The file or folder.
  var url: URL { URL(filePath: output) }

  /// Reports errors before the work begins, not after it.
  func check() throws {
    if [output, saveLatents, saveImageTensor].contains("-") {
      throw Failure("A clip cannot go to standard output, nor a tensor; give the name of a file.")
    }
    guard !output.isEmpty else { throw Failure("--output is empty; give the name of a file or of a new folder.") }
    let format = try ClipFormat(of: url)
    try format.check(framesPerSecond: fps)
    if quality != nil, format != .webp { throw Failure("--quality is for .webp files; leave it out.") }
    if format == .folder {
      try checkNew(folder: url)
    } else {
      try checkWritable(url)
    }
    for path in [saveLatents, saveImageTensor].compactMap(\.self) { try checkWritable(URL(filePath: path)) }
  }

  /// - Throws: a `Failure` if a new folder cannot be made there.
  private func checkNew(folder url: URL) throws {
    let name = url.lastPathComponent, parent = url.deletingLastPathComponent()
    let path = parent.appending(path: name, directoryHint: .notDirectory)
    guard !FileManager.default.fileExists(atPath: path.path(percentEncoded: false)) else {
      throw Failure("\(output) exists already; give a name that is not taken.")
    }
    try checkWritable(path)
  }

  /// Encodes the clip, and writes all files.
  /// - Returns: a sentence about what was written.
  func write(_ clip: Clip, latents: [Tensor], images: [Tensor]) throws -> String {
    let encoded = try clip.encoded(as: ClipFormat(of: url), quality: quality)
    try Signals.whole {
      try encoded.write(to: url)
      if let path = saveLatents { try writeTensor("latents", Tensor.concatenated(latents, axis: 0).channelsFirst(), to: path) }
      if let path = saveImageTensor { try writeTensor("image", Tensor.concatenated(images, axis: 0), to: path) }
    }
    let count = clip.frames.count
    return "\(output): \(count) frame\(count == 1 ? "" : "s") of \(clip.width)×\(clip.height), \(String(format: "%.1f", clip.duration)) s"
  }
}
