import Foundation
import Tensor

/// Weights out of nothing, for tests and measurements: any name of any shape, always with the same values for a seed.
///
/// Matrices and kernels keep the variance of what passes through them, normalisations stay near one, biases small.
public struct RandomWeights: WeightSource {
  /// All values follow from it, the name and the shape.
  public let seed: UInt64
  /// Of all tensors; of those that can be quantised for `q8`, which leaves 16 bits to the others.
  public let elementType: NumberFormat
  /// What the source claims to have; it gives everything else too.
  public let names: Set<String>

  /// - Parameters:
  ///   - seed: all values follow from it.
  ///   - elementType: of all tensors.
  ///   - names: what the source claims to have.
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
    // Uniform with this deviation: nothing here asks for a bell, and it is fast.
    let width = deviation * Float(3).squareRoot()
    let values = (0..<shape.count).map { _ in mean + width * generator.next() }
    let exact = WeightTensor(Tensor(values, shape: shape))
    // Small values fit into every form.
    return (try? exact.converted(to: elementType)) ?? exact
  }
}

/// Steele, Lea and Flood's SplitMix64.
private struct SplitMix {
  var state: UInt64

  mutating func absorb(_ value: UInt64) {
    state = bits() ^ value
  }

  /// From -1 up to 1.
  mutating func next() -> Float { Float(Int64(bitPattern: bits()) >> 40) * 0x1p-23 }

  private mutating func bits() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}
