import Foundation

/// The formats in which a clip can be written.
public enum ClipFormat: Sendable, Equatable, CaseIterable {
  /// Animated WebP and PNG, GIF, MP4 with H.264 and WebM with VP9, and a folder of numbered PNG files.
  case webp, png, gif, mp4, webm, folder

  /// The format that a file's extension names; without one, and where the path ends in a slash, it is a folder.
  /// - Throws: `ClipError.unknownExtension`.
  public init(of url: URL) throws(ClipError) {
    let path = url.path(percentEncoded: false)
    guard !path.hasSuffix("/"), !url.pathExtension.isEmpty else {
      self = .folder
      return
    }
    switch url.pathExtension.lowercased() {
    case "webp": self = .webp
    case "png", "apng": self = .png
    case "gif": self = .gif
    case "mp4": self = .mp4
    case "webm": self = .webm
    default: throw .unknownExtension(name: path)
    }
  }

  var name: String {
    switch self {
    case .webp: "WebP"
    case .png: "PNG"
    case .gif: "GIF"
    case .mp4: "MP4"
    case .webm: "WebM"
    case .folder: "A folder of PNG files"
    }
  }

  /// What can be known before a long computation whose result is written in this format.
  /// - Throws: `ClipError.framesPerSecond`, `.notEncodable`, `.missingProgram`.
  public func check(framesPerSecond: Double) throws(ClipError) {
    guard Clip.frameRates.contains(framesPerSecond) else { throw .framesPerSecond(framesPerSecond) }
    switch self {
    case .gif: try checkGIF(shortest: 1 / framesPerSecond)
    case .mp4, .webm: _ = try FFmpeg(for: self)
    case .webp, .png, .folder: break
    }
  }

  /// GIF counts in hundredths of a second, and programs show frames of one hundredth for ten.
  func checkGIF(shortest: Double) throws(ClipError) {
    guard shortest > 0.0199 else {
      throw .notEncodable(reason: "GIF shows at most 50 frames a second; ask for fewer or write a .webp file")
    }
  }
}
