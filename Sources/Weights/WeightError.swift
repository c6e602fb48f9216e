import Tensor

/// Problems of a model's parameters.
public enum WeightError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The source has no tensor of this name; `similar` is the nearest name that it does have.
  case missing(name: String, similar: String?)
  /// The source has it in another shape.
  case wrongShape(name: String, expected: Shape, found: Shape)
  /// An element is infinite or not a number.
  case notFinite(name: String)
  /// A value is too large for the requested form.
  case outOfRange(name: String, type: NumberFormat)
  /// Elements that layers cannot compute with; `type` is the name in the file.
  case unsupportedElementType(name: String, type: String)

  public var description: String {
    switch self {
    case .missing(let name, let similar):
      "The tensor \(name) is missing." + (similar.map { " Did you mean \($0)?" } ?? "")
    case .wrongShape(let name, let expected, let found):
      "The tensor \(name) has shape \(found), but \(expected) is expected."
    case .notFinite(let name):
      "The tensor \(name) holds values that are infinite or not numbers."
    case .outOfRange(let name, let type):
      "The tensor \(name) holds values that are too large for \(type); take bf16 or f32."
    case .unsupportedElementType(let name, let type):
      "The tensor \(name) has elements of type \(type), which are no numbers that can be computed with; convert the file to F32, F16 or BF16."
    }
  }
}

/// All problems that a loading attempt found.
public struct WeightErrors: Error, Sendable, Equatable, CustomStringConvertible {
  /// In the order in which the layers met them.
  public let problems: [WeightError]
  /// False if the attempt ended before the whole model was checked.
  public let isComplete: Bool

  public var description: String {
    let shown = problems.prefix(5).map(\.description).joined(separator: " ")
    let hidden = problems.count - min(problems.count, 5)
    let count = hidden > 0 ? " (and \(hidden) more problems like these)" : ""
    return shown + count
  }
}
