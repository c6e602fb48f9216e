/// Problems of a safetensors file, or of the index of a set of them.
public enum SafetensorsError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A file that does not exist or cannot be read.
  case unreadable(path: String, reason: String)
  /// A file of another kind.
  case foreign(path: String, ForeignFile)
  /// The file has fewer bytes than the field for the header's length.
  case tooShort(path: String, bytes: Int)
  /// The header's length exceeds the file or the accepted limit.
  case headerTooLong(path: String, bytes: UInt64, limit: Int)
  /// A header that is not JSON in the form that the format prescribes.
  case malformedHeader(path: String, reason: String)
  /// A `dtype` that the format does not know.
  case unknownElementType(path: String, name: String, type: String)
  /// Offsets that overlap, leave gaps or do not fit type and shape.
  case invalidTensor(path: String, name: String, reason: String)
  /// A tensor is quantised in a way that this library does not know.
  case unknownForm(path: String, name: String, form: String)
  /// The header describes more or fewer bytes than follow it.
  case wrongLength(path: String, described: Int, found: Int)
  /// An index that has no map from names to files beside it.
  case malformedIndex(path: String, reason: String)
  /// A file that the index names and that does not exist.
  case missingShard(path: String, shard: String)
  /// A tensor that is not in the file where the index says it is.
  case missingFromShard(name: String, path: String)

  public var description: String {
    switch self {
    case .unreadable(let path, let reason):
      "\(path) cannot be read: \(reason)."
    case .foreign(let path, let file):
      file.described(at: path)
    case .tooShort(let path, let bytes):
      "\(path) is no safetensors file: it has only \(bytes) bytes."
    case .headerTooLong(let path, let bytes, let limit):
      "\(path) is truncated or no safetensors file: it announces a header of \(bytes) bytes, and at most \(limit) are possible."
    case .malformedHeader(let path, let reason):
      "\(path) has a damaged header: \(printable(reason))."
    case .unknownElementType(let path, let name, let type):
      "\(path) is damaged: the tensor \(printable(name)) has elements of the unknown type \(printable(type))."
    case .invalidTensor(let path, let name, let reason):
      "\(path) is damaged: the tensor \(printable(name)) \(reason)."
    case .unknownForm(let path, let name, let form):
      "\(path) holds the tensor \(printable(name)) in the form \(printable(form)), which is not supported; q8_0 and q4_0 are."
    case .wrongLength(let path, let described, let found) where found < described:
      "\(path) is truncated: \(described) bytes of tensors are announced, but there are \(found); download it again."
    case .wrongLength(let path, let described, let found):
      "\(path) is damaged: \(described) bytes of tensors are announced, but there are \(found)."
    case .malformedIndex(let path, let reason):
      "\(path) is no index of files with tensors: \(printable(reason))."
    case .missingShard(let path, let shard):
      "\(path) names the file \(printable(shard)), which is not beside it; download it too."
    case .missingFromShard(let name, let path):
      "The tensor \(printable(name)) is not in \(path), where the index says it is; the files do not belong together."
    }
  }
}

/// Text from a file, made fit for a message: at most 300 characters, without control characters.
package func printable(_ text: String) -> String {
  let shown = String(text.unicodeScalars.prefix(300).map { $0.properties.generalCategory == .control ? "\u{FFFD}" : Character($0) })
  return text.unicodeScalars.count > 300 ? shown + "…" : shown
}
