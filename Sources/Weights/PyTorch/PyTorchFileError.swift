/// Why a file of PyTorch cannot be read. Nothing in such a file is ever run.
public enum PyTorchFileError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A file that does not exist or cannot be mapped.
  case unreadable(path: String, reason: String)
  /// The archive or the pickle is damaged, or made to mislead.
  case malformed(path: String, reason: String)
  /// The file has contents that `torch.save` can write and this library does not read.
  case unsupported(path: String, reason: String)
  /// The pickle calls a function, or makes an object of a class, that is not needed to read tensors.
  case forbidden(path: String, name: String)
  /// A tensor that does not lie in the storage that it names.
  case invalidTensor(path: String, name: String, reason: String)

  public var description: String {
    switch self {
    case .unreadable(let path, let reason):
      "\(path) cannot be read: \(reason)."
    case .malformed(let path, let reason):
      "\(path) is damaged or no file of PyTorch: \(printable(reason))."
    case .unsupported(let path, let reason):
      "\(path) cannot be read: \(printable(reason))."
    case .forbidden(let path, let name):
      "\(path) is refused: it asks to call \(printable(name)), which reading tensors does not need; nothing was run, and a .safetensors file of the model "
        + "is safe."
    case .invalidTensor(let path, let name, let reason):
      "\(path) is damaged: the tensor \(printable(name)) \(printable(reason))."
    }
  }
}

/// A problem of a pickle or of the archive around it, before the path of the file is known.
enum PickleProblem: Error {
  /// The end of a sentence about what is damaged.
  case malformed(String)
  /// The end of a sentence about what is not read.
  case unsupported(String)
  /// What would be called.
  case forbidden(String)

  func error(path: String) -> PyTorchFileError {
    switch self {
    case .malformed(let reason): .malformed(path: path, reason: reason)
    case .unsupported(let reason): .unsupported(path: path, reason: reason)
    case .forbidden(let name): .forbidden(path: path, name: name)
    }
  }
}
