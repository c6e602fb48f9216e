import Foundation

/// Arithmetic on whole tensors, so that the formulas of schedulers and guidance read as in their papers. Their tensors are small.
/// Layers use the fused operations instead.
extension Tensor {
  /// The function applied to each element; the shape stays.
  public func map(_ transform: (Float) -> Float) -> Tensor {
    if let counted = Tensor.counted(shape, like: [self]) { return counted }
    let result = Tensor(uninitialized: shape)
    for i in 0..<count { result.mutablePointer[i] = transform(pointer[i]) }
    return result
  }

  /// Element by element.
  /// - Precondition: the shapes are equal.
  public func zip(_ other: Tensor, _ combine: (Float, Float) -> Float) -> Tensor {
    precondition(shape == other.shape, "\(shape) and \(other.shape) do not match.")
    if let counted = Tensor.counted(shape, like: [self, other]) { return counted }
    let result = Tensor(uninitialized: shape)
    for i in 0..<count { result.mutablePointer[i] = combine(pointer[i], other.pointer[i]) }
    return result
  }

  /// Element by element.
  /// - Precondition: the shapes are equal.
  public static func + (a: Tensor, b: Tensor) -> Tensor { a.zip(b) { $0 + $1 } }
  /// Element by element.
  /// - Precondition: the shapes are equal.
  public static func - (a: Tensor, b: Tensor) -> Tensor { a.zip(b) { $0 - $1 } }
  /// Element by element.
  /// - Precondition: the shapes are equal.
  public static func * (a: Tensor, b: Tensor) -> Tensor { a.zip(b) { $0 * $1 } }
  /// Element by element.
  /// - Precondition: the shapes are equal.
  public static func / (a: Tensor, b: Tensor) -> Tensor { a.zip(b) { $0 / $1 } }
  /// Each element plus a number.
  public static func + (a: Tensor, b: Float) -> Tensor { a.map { $0 + b } }
  /// Each element minus a number.
  public static func - (a: Tensor, b: Float) -> Tensor { a.map { $0 - b } }
  /// Each element times a number.
  public static func * (a: Tensor, b: Float) -> Tensor { a.map { $0 * b } }
  /// Each element times a number.
  public static func * (a: Float, b: Tensor) -> Tensor { b.map { a * $0 } }
  /// Each element divided by a number.
  public static func / (a: Tensor, b: Float) -> Tensor { a.map { $0 / b } }
  /// Each element negated.
  public static prefix func - (a: Tensor) -> Tensor { a.map { -$0 } }

  /// e to the power of each element.
  public func exponential() -> Tensor { map { exp($0) } }

  /// Each element, limited to the range.
  public func clamped(to range: ClosedRange<Float>) -> Tensor {
    map { min(max($0, range.lowerBound), range.upperBound) }
  }

  /// Whether no element is infinite or NaN.
  public var isFinite: Bool { isCounted || (0..<count).allSatisfy { pointer[$0].isFinite } }
}
