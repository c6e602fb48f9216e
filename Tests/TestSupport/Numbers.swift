import Foundation
import Tensor

/// Numbers for tests that look random and are the same every time (SplitMix64).
public struct Numbers: RandomNumberGenerator {
  private var state: UInt64

  public init(seed: UInt64 = 0) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// `count` values of a normal distribution.
  public mutating func normal(_ count: Int, mean: Float = 0, deviation: Float = 1) -> [Float] {
    (0..<count).map { _ in
      let radius = (-2 * log(Double.random(in: Double.leastNormalMagnitude...1, using: &self))).squareRoot()
      return mean + deviation * Float(radius * cos(2 * .pi * Double.random(in: 0..<1, using: &self)))
    }
  }

  public mutating func uniform(_ count: Int, in range: ClosedRange<Float>) -> [Float] {
    (0..<count).map { _ in Float.random(in: range, using: &self) }
  }

  /// A tensor of normal values.
  public mutating func tensor(_ shape: Shape, mean: Float = 0, deviation: Float = 1) -> Tensor {
    Tensor(normal(shape.count, mean: mean, deviation: deviation), shape: shape)
  }
}
