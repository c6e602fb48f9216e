import Tensor
import Testing

/// How far two lists of numbers are from one another, and where they are furthest apart.
public struct Difference: Sendable, CustomStringConvertible {
  /// The largest |found - expected|; infinite where the counts differ or only one of two values is finite.
  public let largest: Float
  /// `largest` divided by the root mean square of what was expected: "three digits" is 1e-3, whatever the values' size.
  public let error: Float
  /// Where the largest difference is, in row-major order, and the two values there.
  public let index: Int
  public let found: Float
  public let expected: Float
  /// False where an element is further away than `absolute + relative · |expected|`.
  public let isTolerable: Bool
  private let counts: (found: Int, expected: Int)

  fileprivate init(_ found: [Float], _ expected: [Float], relative: Float, absolute: Float) {
    var (index, largest, excess, squares) = (0, Float(0), -Float.infinity, 0.0)
    for i in 0..<min(found.count, expected.count) {
      let (a, b) = (found[i], expected[i])
      // NaN meets NaN, and an infinity its like.
      let distance = a == b || (a.isNaN && b.isNaN) ? 0 : (a - b).isFinite ? abs(a - b) : .infinity
      let allowed = absolute + relative * (b.isFinite ? abs(b) : 0)
      excess = max(excess, distance - allowed)
      if distance > largest { (index, largest) = (i, distance) }
      squares += b.isFinite ? Double(b) * Double(b) : 0
    }
    let rms = Float((squares / Double(max(expected.count, 1))).squareRoot())
    counts = (found.count, expected.count)
    if found.count != expected.count { largest = .infinity }
    isTolerable = found.count == expected.count && !(excess > 0)
    (self.index, self.largest) = (index, largest)
    error = largest == 0 ? 0 : largest / rms
    self.found = index < found.count ? found[index] : .nan
    self.expected = index < expected.count ? expected[index] : .nan
  }

  public var description: String {
    counts.found == counts.expected
      ? "largest difference \(largest) (\(error) of the root mean square) at \(index) of \(counts.expected): \(found), expected \(expected)"
      : "\(counts.found) values, expected \(counts.expected)"
  }
}

/// Compares element by element: each may be `absolute + relative · |expected|` away.
public func compare(_ found: [Float], _ expected: [Float], relative: Float = 0, absolute: Float = 0) -> Difference {
  Difference(found, expected, relative: relative, absolute: absolute)
}

/// Expects two lists to be equal up to `tolerance` times the root mean square of `expected`; `name` says what is compared.
@discardableResult
public func expectClose(
  _ found: [Float], _ expected: [Float], tolerance: Float, _ name: String = "", sourceLocation: SourceLocation = #_sourceLocation
) -> Difference {
  let difference = compare(found, expected)
  expect(error: difference.error, atMost: tolerance, "\(name) \(difference)", sourceLocation: sourceLocation)
  return difference
}

/// Expects two tensors to have the same shape and to be equal up to `tolerance` times the root mean square of `expected`.
@discardableResult
public func expectClose(
  _ found: Tensor, _ expected: Tensor, tolerance: Float, _ name: String = "", sourceLocation: SourceLocation = #_sourceLocation
) -> Difference {
  if found.shape != expected.shape {
    Issue.record("\(name) has the shape \(found.shape), expected \(expected.shape)", sourceLocation: sourceLocation)
  }
  return expectClose(found.elements, expected.elements, tolerance: tolerance, name, sourceLocation: sourceLocation)
}
