/// Why a picture could not be read or encoded. `name` is the file's path, or "The picture" for one that came as data.
///
/// What can go wrong while a file is written is a `FileWriteError` of the module Tensor.
public enum ImageFileError: Error, Sendable, Equatable, CustomStringConvertible {
  case notFound(name: String)
  case isFolder(name: String)
  case notReadable(name: String, reason: String)
  case empty(name: String)
  /// `found` is the format where it is a known one.
  case unknownFormat(name: String, found: String?)
  case damaged(name: String, reason: String)
  case tooLarge(name: String, width: Int, height: Int)
  case fileTooLarge(name: String)
  case unknownExtension(name: String)
  case notEncodable(reason: String)

  public var description: String {
    switch self {
    case .notFound(let name):
      "There is no file \(name); check the path."
    case .isFolder(let name):
      "\(name) is a folder; give a PNG or JPEG file."
    case .notReadable(let name, let reason):
      "\(name) cannot be read: \(reason)."
    case .empty(let name):
      "\(name) is empty; give a PNG or JPEG file."
    case .unknownFormat(let name, let found):
      "\(name) is " + (found.map { "a \($0) file" } ?? "no picture of a known format") + "; PNG and JPEG can be read, so convert it first."
    case .damaged(let name, let reason):
      "\(name) is damaged or uses a rare form of its format (\(reason)); save it again as PNG or JPEG."
    case .tooLarge(let name, let width, let height):
      "\(name) says that it has \(width)×\(height) pixels; at most \(Picture.largestSide) a side and"
        + " \(Picture.largestPixelCount) in all can be read, so make it smaller first."
    case .fileTooLarge(let name):
      "\(name) is longer than \(Picture.largestFile >> 20) MiB; make the picture smaller first."
    case .unknownExtension(let name):
      "\(name) does not say in which format to write; end its name in .png, .jpg or .jpeg."
    case .notEncodable(let reason):
      "The picture cannot be encoded: \(reason)."
    }
  }
}
