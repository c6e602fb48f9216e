import Tensor

/// Why an adapter cannot be used.
public enum AdapterError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A file without a tensor that belongs to an adapter; `example` is one of its names.
  case noAdapter(path: String, example: String?)
  /// Nothing of the file has a place in the model; `keys` are some of its names, and `expected` some of the model's modules.
  case nothingApplied(path: String, count: Int, keys: [String], expected: [String])
  /// A tensor for a layer of another width, as adapters of other models have.
  case wrongShape(path: String, key: String, found: Shape, layer: String, expected: Shape)
  /// Values that are infinite or not numbers.
  case notFinite(path: String, key: String)
  /// A module whose tensors do not make a change together.
  case incomplete(path: String, module: String, missing: String)
  /// The same module of a model under two names, so that its change would be made twice.
  case twice(path: String, module: String, names: [String])
  /// A tensor whose elements are no numbers.
  case unsupportedElementType(path: String, key: String, type: String)
  /// A description of the adapter that cannot be read.
  case malformedMetadata(path: String, reason: String)
  /// A weight that is no number.
  case badWeight(path: String)
  /// Parameters that cannot be changed while a model is loaded.
  case onlyAtLoading(path: String, parameter: String)

  public var description: String {
    func list(_ names: [String]) -> String { names.map { printable($0) }.joined(separator: ", ") }
    return switch self {
    case .noAdapter(let path, let example):
      "\(path) is no adapter: none of its tensors has the name of a LoRA or LyCORIS change"
        + (example.map { " (one is \(printable($0)))." } ?? ".")
    case .nothingApplied(let path, let count, let keys, let expected):
      "\(path) does not belong to this model: 0 of \(count) changes can be applied. It has \(list(keys)); expected are modules such as "
        + "\(list(expected))."
    case .wrongShape(let path, let key, let found, let layer, let expected):
      "\(path) does not belong to this model: \(printable(key)) has shape \(found), which does not fit \(layer) of shape \(expected)."
    case .notFinite(let path, let key): "\(path) is damaged: \(printable(key)) holds values that are infinite or not numbers."
    case .incomplete(let path, let module, let missing):
      "\(path) cannot be used: \(printable(module)) has no \(missing)."
    case .twice(let path, let module, let names):
      "\(path) cannot be used: it changes \(printable(module)) twice, as \(names.map { printable($0) }.joined(separator: " and as "))."
    case .unsupportedElementType(let path, let key, let type):
      "\(path) cannot be used: \(printable(key)) has elements of type \(printable(type)), which are no numbers that can be computed with."
    case .malformedMetadata(let path, let reason): "\(path) cannot be used: its description of the adapter \(printable(reason))."
    case .badWeight(let path): "The weight of \(path) is no number."
    case .onlyAtLoading(let path, let parameter):
      "\(path) changes \(parameter), which cannot be changed while a model is loaded; give the adapter when the model is loaded."
    }
  }
}

/// What became of an adapter in a model.
public struct AdapterReport: Sendable, Equatable {
  /// The adapter's file.
  public let path: String
  /// Modules of the file whose changes were applied.
  public let applied: Int
  /// Modules of the file.
  public let count: Int
  /// Names of tensors that were not used, sorted.
  public let unused: [String]
}
