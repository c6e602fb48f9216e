import Foundation
import Tensor

/// Weights out of nothing, for tests and measurements: any name of any shape, always with the same values for a seed.
///
/// Matrices and kernels keep the variance of what passes through them, normalisations stay near one, biases small.
public struct RandomWeights: WeightSource {
  /// All values follow from it, the name and the shape.
  public let seed: UInt64
  /// Of all tensors.
  public let elementType: ElementType
  /// What the source claims to have; it gives everything else too.
  public let names: Set<String>

  /// - Parameters:
  ///   - seed: all values follow from it.
  ///   - elementType: of all tensors.
  ///   - names: what the source claims to have.
  public init(seed: UInt64, elementType: ElementType = .float32, names: Set<String> = []) {
    self.seed = seed
    self.elementType = elementType
    self.names = names
  }

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
    let data =
      switch elementType {
      case .float32: WeightTensor(Tensor(values, shape: shape)).data
      case .float16: Self.bytes(values) { Float16Bits.rounded($0) }
      case .bfloat16: Self.bytes(values) { UInt16(truncatingIfNeeded: ($0.bitPattern + 0x7FFF + ($0.bitPattern >> 16 & 1)) >> 16) }
      }
    return WeightTensor(shape: shape, elementType: elementType, data: data)
  }

  private static func bytes(_ values: [Float], _ bits: (Float) -> UInt16) -> Data {
    var data = Data(capacity: 2 * values.count)
    for value in values {
      let bits = bits(value)
      data.append(UInt8(truncatingIfNeeded: bits))
      data.append(UInt8(truncatingIfNeeded: bits >> 8))
    }
    return data
  }
}

/// float32 to float16 for values that are neither huge nor special; Swift has no `Float16` on Intel Macs.
private enum Float16Bits {
  static func rounded(_ value: Float) -> UInt16 {
    let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
    let size = abs(value)
    // Below the smallest normal number, steps of 2⁻²⁴; above, the exponent is moved and the fraction rounded to even.
    if size < 0x1p-14 { return sign | UInt16((size * 0x1p24).rounded(.toNearestOrEven)) }
    let bits = size.bitPattern - (112 << 23)
    return sign | UInt16(truncatingIfNeeded: min((bits + 0xFFF + (bits >> 13 & 1)) >> 13, 0x7BFF))
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
