import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

struct Txt2Video: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "txt2video", abstract: "Draws a clip from words, with motion modules (AnimateDiff) in a model for pictures.")
  @OptionGroup var options: GenerateOptions
  @OptionGroup(title: "Output") var rate: FrameRateOptions

  @Option(parsing: .unconditional, help: "Frames of the clip. Without it, 16.")
  var frames: Int?

  func validate() throws {
    guard frames ?? 1 > 0 else { throw ValidationError("--frames must be more than 0.") }
  }

  func run() async throws { try await options.run(fps: rate.fps, TextToVideo(frames: frames)) }
}

struct Video2Video: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "video2video", abstract: "Draws a clip over another one, with motion modules (AnimateDiff) in a model for pictures.")
  @OptionGroup var options: GenerateOptions
  @OptionGroup(title: "Output") var rate: FrameRateOptions

  @Option(parsing: .unconditional, help: "The clip to start from: a folder of pictures of one size, in the order of their names.")
  var video: String

  @Option(parsing: .unconditional, help: "How much to change, 0…1: the part of the steps that is run. Without it, 0.8.")
  var strength: Double?

  func validate() throws { try checkStrength(strength) }

  func run() async throws {
    try await options.run(reading: [video], strength: strength, fps: rate.fps, VideoToVideo(clip(video)))
  }
}

struct FrameRateOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "Frames a second of the clip.")
  var fps = 8

  func validate() throws {
    guard (1...1000).contains(fps) else { throw ValidationError("--fps must be from 1 to 1000.") }
  }
}

/// The frames of a clip, `[1, F, H, W, 3]`.
func clip(_ path: String) throws -> Tensor {
  let all = try pictures(path)
  guard let first = all.first, all.allSatisfy({ $0.width == first.width && $0.height == first.height }) else {
    throw Failure("The pictures in \(path) are of different sizes; give frames of one size.")
  }
  let frames = Tensor.concatenated(all.map { $0.tensor() }, axis: 0)
  return frames.reshaped(Shape([1] + frames.shape.dimensions))
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

extension OutputOptions {
  /// Reports errors before the work begins, not after it.
  func checkClips(count: Int) throws {
    guard !isStandardOutput else { throw Failure("A clip cannot go to standard output; give the name of a folder.") }
    for path in [saveLatents, saveImageTensor] where path == "-" {
      throw Failure("A tensor cannot go to standard output; give the name of a file.")
    }
    for folder in clips(count) { try checkFrameFolder(folder) }
    for path in [saveLatents, saveImageTensor].compactMap({ $0 }) { try checkWritable(URL(filePath: path)) }
  }

  /// The folder itself for one clip, numbered folders for more.
  func clips(_ count: Int) -> [URL] {
    let url = URL(filePath: output, directoryHint: .isDirectory)
    guard count > 1 else { return [url] }
    let name = url.lastPathComponent
    return (1...count).map { url.deletingLastPathComponent().appending(path: "\(name)-\($0)", directoryHint: .isDirectory) }
  }

  /// Writes the frames of a clip, each with a text that tells how it was made.
  ///
  /// - Parameter fps: frames a second, which a folder does not say.
  func write(clip frames: [(picture: Picture, parameters: String)], to folder: URL, fps: Int) throws {
    do { try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false) } catch CocoaError.fileWriteFileExists {}
    for (index, frame) in frames.enumerated() {
      let number = String(format: "%04d", index + 1)
      try frame.picture.write(to: folder.appending(path: "\(number).png"), parameters: frame.parameters)
    }
  }

  private func checkFrameFolder(_ folder: URL) throws {
    let path = folder.path(percentEncoded: false)
    guard folder.pathExtension.isEmpty || output.hasSuffix("/") else {
      throw Failure("\(output) cannot be written: clips go to a folder; give a name without an extension, or one that ends in a slash.")
    }
    var isFolder: ObjCBool = false
    guard
      FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
        || FileManager.default.fileExists(atPath: String(path.dropLast()))
    else { return try checkWritable(URL(filePath: String(path.dropLast()))) }
    guard isFolder.boolValue else { throw Failure("\(path.dropLast()) is a file; give the name of a folder for the frames.") }
    // Frames of a longer clip would stay among the new ones.
    guard (try? FileManager.default.contentsOfDirectory(atPath: path).isEmpty) ?? true else {
      throw Failure("\(output) has files already; give a new folder for the frames, or an empty one.")
    }
    guard access(path, W_OK) == 0 else {
      throw Failure("\(path) cannot be written because its permissions forbid it; choose another place.")
    }
  }
}
