/// A floating-point format of 16 bits, made of float32 by rounding to the nearest, ties to even.
///
/// In integers and without branches, so that loops over it become vectors; Swift has no `Float16` on Intel Macs.
protocol RoundedFormat {
  static var elementType: ElementType { get }
  /// The bits of the smallest positive float32 that becomes infinite.
  static var overflow: UInt32 { get }
  static func rounded(_ value: Float) -> UInt16
}

/// IEEE half precision.
enum HalfPrecision: RoundedFormat {
  static let elementType = ElementType.float16
  /// 65520: half a step above the largest number.
  static let overflow: UInt32 = 0x477F_F000

  @inline(__always)
  static func rounded(_ value: Float) -> UInt16 {
    let sign = value.bitPattern >> 16 & 0x8000
    let size = value.bitPattern & 0x7FFF_FFFF
    // The exponent's bias goes from 127 to 15, the fraction from 23 bits to 10.
    let normal = (size &- 112 << 23 &+ 0xFFF &+ (size >> 13 & 1)) >> 13
    // Below 2⁻¹⁴ steps are 2⁻²⁴, those that float32 has from 0.5 to 1.
    let subnormal = (Float(bitPattern: min(size, 0x3880_0000)) + 0.5).bitPattern &- Float(0.5).bitPattern
    let finite = size < 0x3880_0000 ? subnormal : normal
    let special: UInt32 = size > 0x7F80_0000 ? 0x7E00 : 0x7C00
    return UInt16(truncatingIfNeeded: sign | (size < overflow ? finite : special))
  }

  @inline(__always)
  static func widened(_ bits: UInt16) -> Float {
    let size = UInt32(bits & 0x7FFF) << 13
    // The product moves the exponent's bias, also for numbers below the smallest normal one.
    let finite = (Float(bitPattern: size) * 0x1p112).bitPattern
    return Float(bitPattern: (bits & 0x7C00 == 0x7C00 ? size | 0x7F80_0000 : finite) | UInt32(bits & 0x8000) << 16)
  }
}

/// bfloat16: the upper half of float32.
enum BrainPrecision: RoundedFormat {
  static let elementType = ElementType.bfloat16
  static let overflow: UInt32 = 0x7F7F_8000

  @inline(__always)
  static func rounded(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    let nearest = (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16
    return UInt16(truncatingIfNeeded: bits & 0x7FFF_FFFF > 0x7F80_0000 ? 0x7FC0 : nearest)
  }
}
