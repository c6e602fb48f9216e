import Foundation
import Tensor

/// Random weights for tests and measurements: a tensor for any name and shape, always with the same values for a seed.
///
/// Matrices and kernels preserve the variance of their inputs. Normalisation weights are near one, and biases are small.
public struct RandomWeights: WeightSource {
  /// The values depend only on the seed, the name and the shape.
  public let seed: UInt64
  /// The format of all tensors. With `q8`, tensors that cannot be quantised have 16 bits.
  public let elementType: NumberFormat
  /// The names that the source reports. It has a tensor for every other name, too.
  public let names: Set<String>

  /// - Parameters:
  ///   - seed: the values depend only on the seed, the name and the shape.
  ///   - elementType: the format of all tensors.
  ///   - names: the names that the source reports.
  public init(seed: UInt64, elementType: NumberFormat = .float32, names: Set<String> = []) {
    self.seed = seed
    self.elementType = elementType
    self.names = names
  }

  public func origin(of name: String) -> WeightOrigin { .seeded(seed) }

  public func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor {
    guard shape.count < Int.max / 4 else { throw .wrongShape(name: name, expected: shape, found: []) }
    var generator = SplitMix(state: seed)
    for byte in name.utf8 { generator.absorb(UInt64(byte)) }
    for extent in shape.dimensions { generator.absorb(UInt64(truncatingIfNeeded: extent)) }
    let fanIn = shape.dimensions.dropFirst().reduce(1, *)
    let (mean, deviation): (Float, Float) =
      if shape.rank > 1 { (0, 1 / Float(max(fanIn, 1)).squareRoot()) } else if name.hasSuffix("weight") { (1, 0.1) } else { (0, 0.1) }
    // Uniform values with this deviation: they are fast, and nothing here needs a normal distribution.
    let width = deviation * Float(3).squareRoot()
    let values = (0..<shape.count).map { _ in mean + width * generator.next() }
    let exact = WeightTensor(Tensor(values, shape: shape))
    // Small values fit into every format.
    return (try? exact.converted(to: elementType)) ?? exact
  }
}

/// Steele, Lea and Flood's SplitMix64.
private struct SplitMix {
  var state: UInt64

  mutating func absorb(_ value: UInt64) {
    state = bits() ^ value
  }

  /// A value from -1 to below 1.
  mutating func next() -> Float { Float(Int64(bitPattern: bits()) >> 40) * 0x1p-23 }

  private mutating func bits() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}
