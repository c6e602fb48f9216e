/// Problems of a GGUF file.
public enum GGUFError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A file that does not exist or cannot be read.
  case unreadable(path: String, reason: String)
  /// A file of another kind.
  case foreign(path: String, ForeignFile)
  /// A file of another version, or in another byte order.
  case unsupported(path: String, reason: String)
  /// A header that is not as the format prescribes.
  case malformedHeader(path: String, reason: String)
  /// A tensor with a type that this library does not read.
  case unknownElementType(path: String, name: String, type: String)
  /// A tensor whose shape, place or bytes do not fit.
  case invalidTensor(path: String, name: String, reason: String)
  /// The file ends before its tensors do.
  case tooShort(path: String, described: Int, found: Int)
  /// A tensor that the format cannot hold.
  case notWritable(name: String, reason: String)

  public var description: String {
    switch self {
    case .unreadable(let path, let reason):
      "\(path) cannot be read: \(reason)."
    case .foreign(let path, let file):
      file.described(at: path)
    case .unsupported(let path, let reason):
      "\(path) is a GGUF file \(reason), which is not supported; versions 2 and 3 in little-endian order are."
    case .malformedHeader(let path, let reason):
      "\(path) has a damaged header: \(printable(reason))."
    case .unknownElementType(let path, let name, let type):
      "\(path) holds the tensor \(printable(name)) as \(type), which is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K are."
    case .invalidTensor(let path, let name, let reason):
      "\(path) is damaged: the tensor \(printable(name)) \(printable(reason))."
    case .tooShort(let path, let described, let found):
      "\(path) is truncated: it should have \(described) bytes, but it has \(found); download it again."
    case .notWritable(let name, let reason):
      "The tensor \(printable(name)) cannot be written to a GGUF file: \(reason); write a .safetensors file instead."
    }
  }
}
