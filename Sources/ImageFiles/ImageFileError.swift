import LatentDiffusionFiles

/// Why a picture could not be read or encoded. `name` is the file's path, or "The picture" for one that came as data.
///
/// Errors while a file is written are `FileWriteError`s of the module Tensor.
public enum ImageFileError: Error, Sendable, Equatable, CustomStringConvertible {
  /// There is no such file.
  case notFound(name: String)
  /// The name is that of a folder, not of a file.
  case isFolder(name: String)
  /// The file exists, but it cannot be read.
  case notReadable(name: String, reason: String)
  /// The file has no bytes.
  case empty(name: String)
  /// The format is not supported. `found` is its name if it is a known one.
  case unknownFormat(name: String, found: String?)
  /// A PNG, JPEG or WebP that breaks off, contradicts itself, or uses a form that is not supported.
  case damaged(name: String, reason: String)
  /// More pixels than `Picture.largestSide` or `Picture.largestPixelCount` allow.
  case tooLarge(name: String, width: Int, height: Int)
  /// More bytes than `Picture.largestFile`.
  case fileTooLarge(name: String)
  /// The name of the file to write has no supported extension. `format` is the format that the extension names, if it is a known one.
  case unknownExtension(name: String, format: String?)
  /// A picture that the format cannot hold.
  case notEncodable(reason: String)
  /// Bytes in memory that make no picture, or a picture that cannot have such bytes.
  case unusablePixels(reason: String)

  public var description: String {
    switch self {
    case .notFound(let name):
      "There is no file \(name); check the path."
    case .isFolder(let name):
      "\(name) is a folder; give a PNG, JPEG or WebP file."
    case .notReadable(let name, let reason):
      "\(name) cannot be read: \(reason)."
    case .empty(let name):
      "\(name) is empty; give a PNG, JPEG or WebP file."
    case .unknownFormat(let name, let found):
      "\(name) is " + (found.map { "\("A".contains($0.prefix(1)) ? "an" : "a") \($0) file" } ?? "no picture of a known format")
        + "; PNG, JPEG and WebP can be read, so convert it first."
    case .damaged(let name, let reason):
      "\(name) is damaged or uses a rare form of its format (\(reason)); save it again as PNG, JPEG or WebP."
    case .tooLarge(let name, let width, let height):
      "\(name) says that it has \(width)×\(height) pixels; at most \(Picture.largestSide) a side and"
        + " \(Picture.largestPixelCount) in all can be read, so make it smaller first."
    case .fileTooLarge(let name):
      "\(name) is longer than \(Picture.largestFile >> 20) MiB; make the picture smaller first."
    case .unknownExtension(let name, let format?):
      "\(name) asks for \(format), which cannot be written; end its name in .png, .jpg, .jpeg or .webp."
    case .unknownExtension(let name, nil):
      "\(name) does not say in which format to write; end its name in .png, .jpg, .jpeg or .webp."
    case .notEncodable(let reason):
      "The picture cannot be encoded: \(reason)."
    case .unusablePixels(let reason):
      "Pixels in memory cannot be used: \(reason)."
    }
  }
}
