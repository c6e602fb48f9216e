import Foundation
import ImageFiles
import LatentDiffusionFiles

/// The bytes of a clip's file, or of the files of its folder.
///
/// Encoding takes long and writing does not: whoever must not be interrupted while files are written does both by themselves.
public struct EncodedClip: Sendable {
  /// The file, or a PNG file for each frame of a folder.
  public let files: [Data]
  /// Whether the files go into a folder.
  public let isFolder: Bool

  init(_ file: Data) { (files, isFolder) = ([file], false) }
  init(folder files: [Data]) { (self.files, isFolder) = (files, true) }

  /// Writes a whole file, or a new folder with `frame-0001.png` and so on, or nothing.
  /// - Throws: `FileWriteError`; nothing is left then.
  public func write(to url: URL) throws {
    guard isFolder else { return try files[0].writeBesideThenRename(to: url) }
    try FileWriting.makeFolder(at: url) { folder in
      for (index, data) in files.enumerated() {
        try data.writeBesideThenRename(to: folder.appending(path: String(format: "frame-%04d.png", index + 1)))
      }
    }
  }
}

extension Clip {
  /// The clip in a format.
  ///
  /// WebP without a quality, PNG and folders give back the same pixels. GIF does where the clip has no more than 256 colours. GIF, MP4 and WebM are on white
  /// where a frame is transparent. MP4 and WebM need frames that are all shown for the same time, and the program `ffmpeg` on the `PATH`.
  /// - Parameter quality: of WebP, 0…100, values outside are clamped; nil: without loss. It means nothing to other formats.
  /// - Throws: `ClipError`, `ImageFileError.notEncodable`, and `CancellationError` where the task has been cancelled.
  public func encoded(as format: ClipFormat, quality: Int? = nil) throws -> EncodedClip {
    switch format {
    case .webp: return EncodedClip(try webpData(quality: quality))
    case .png: return EncodedClip(try pngData())
    case .gif: return EncodedClip(try gifData())
    case .mp4, .webm: return EncodedClip(try FFmpeg(for: format).encode(self))
    case .folder:
      let files = try frames.map {
        try Task.checkCancellation()
        return try $0.picture.pngData(parameters: parameters)
      }
      return EncodedClip(folder: files)
    }
  }

  /// Writes the clip in the format that the file's extension names, as a whole or not at all.
  /// - Throws: what `ClipFormat.init`, `encoded` and `EncodedClip.write` throw.
  public func write(to url: URL, quality: Int? = nil) throws { try encoded(as: ClipFormat(of: url), quality: quality).write(to: url) }
}
