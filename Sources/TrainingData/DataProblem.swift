/// What is odd in a folder of pictures. Nothing is left out without one of these.
public enum DataProblem: Sendable, Hashable, CustomStringConvertible {
  /// A picture that cannot be read, with the sentence that says why.
  case unreadablePicture(name: String, reason: String)
  /// A picture that nothing gives a caption.
  case pictureWithoutCaption(name: String)
  /// A caption of a picture that is not there.
  case captionWithoutPicture(name: String, source: String)
  /// A caption that is no text, or a line that is no caption.
  case unreadableCaption(source: String, reason: String)
  /// A caption that is longer than is accepted.
  case longCaption(source: String, bytes: Int, limit: Int)
  /// A caption of a picture that has another one already.
  case secondCaption(name: String, source: String)
  /// A folder that cannot be read, or is only linked to.
  case skippedFolder(name: String, reason: String)
  /// A file that is neither a picture nor a caption.
  case unusedFile(name: String, reason: String)
  /// Keys or columns of a file with captions that mean nothing here.
  case unusedColumns(source: String, names: [String])

  /// Whether a picture or a caption is left out because of it. What is left over beside them is told and does no harm.
  public var isFault: Bool {
    switch self {
    case .unusedFile, .unusedColumns: false
    default: true
    }
  }

  public var description: String { clause + "." }

  /// The sentence without its end.
  var clause: String {
    switch self {
    case .unreadablePicture(_, let reason): reason.hasSuffix(".") ? String(reason.dropLast()) : reason
    case .pictureWithoutCaption(let name): "\(name) has no caption, so it is left out"
    case .captionWithoutPicture(let name, let source) where name == source: "\(source) is a caption, but there is no picture of this name"
    case .captionWithoutPicture(let name, let source): "\(source) has a caption for \(name), but there is no such picture"
    case .unreadableCaption(let source, let reason): "\(source) is left out: \(reason)"
    case .longCaption(let source, let bytes, let limit): "\(source) is left out: it has \(bytes) bytes, and a caption at most \(limit)"
    case .secondCaption(let name, let source): "\(source) has another caption for \(name), which is left out"
    case .skippedFolder(let name, let reason): "The folder \(name) is left out: \(reason)"
    case .unusedFile(let name, let reason): "\(name) is not used: \(reason)"
    case .unusedColumns(let source, let names):
      "\(source) has more than file_name and text, which is not used: \(names.joined(separator: ", "))"
    }
  }
}
