import Foundation
import ImageFiles

extension Clip {
  /// Reads an animated WebP, an animated PNG or a GIF, whatever its extension, as it would be shown: each frame on what the frames before it left.
  /// A still picture is a clip of one frame. A frame whose file gives it no time is shown for a tenth of a second, as browsers do.
  /// - Throws: `ClipError`, and `ImageFileError` where the file cannot be read.
  public init(contentsOf url: URL) throws {
    let name = url.isFileURL ? url.path(percentEncoded: false) : url.absoluteString
    let bytes: [UInt8]
    do {
      bytes = try fileBytes(at: url, name: name) { start throws(ImageFileError) in
        if Kind(start) == nil { throw .unknownFormat(name: name, found: nil) }
      }
    } catch .unknownFormat {
      throw ClipError.unknownFormat(name: name)
    }
    try self.init(bytes: bytes, name: name)
  }

  /// Reads the contents of such a file.
  /// - Parameter name: the name in errors.
  /// - Throws: `ClipError`.
  public init(data: Data, name: String = "The clip") throws { try self.init(bytes: Array(data), name: name) }

  private init(bytes: [UInt8], name: String) throws {
    switch Kind(bytes) {
    case .webp: try self.init(webp: bytes, name: name)
    case .png: try self.init(png: bytes, name: name)
    case .gif: try self.init(gif: bytes, name: name)
    case nil: throw ClipError.unknownFormat(name: name)
    }
  }

  /// What the first bytes of a file say.
  private enum Kind {
    case webp, png, gif

    init?(_ bytes: [UInt8]) {
      if bytes.starts(with: PNGChunks.signature) {
        self = .png
      } else if bytes.has("RIFF", at: 0), bytes.has("WEBP", at: 8) {
        self = .webp
      } else if bytes.has("GIF8", at: 0) {
        self = .gif
      } else {
        return nil
      }
    }
  }

  /// A file of a few bytes can claim a size that fills all memory.
  static func checkSize(width: Int, height: Int, frames: Int, name: String) throws(ClipError) {
    guard (1...Picture.largestSide).contains(width), (1...Picture.largestSide).contains(height), frames >= 1,
      frames <= largestPixelCount / (width * height)
    else { throw .tooLarge(name: name, width: width, height: height, frames: frames) }
  }

  /// What was read from a file.
  init(read frames: [Frame], parameters: String?, name: String) throws(ClipError) {
    let frames = frames.map { Frame($0.picture, duration: $0.duration > 0 ? min($0.duration, 1 / Self.frameRates.lowerBound) : 0.1) }
    guard !frames.isEmpty else { throw .damaged(name: name, reason: "it has no frames") }
    try self.init(frames, parameters: parameters)
  }
}
