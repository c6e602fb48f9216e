import CLatentDiffusionKernels

extension NumberFormat {
  /// IEEE half precision.
  public static let float16 = NumberFormat(HalfPrecision.self)
}

/// IEEE half precision.
enum HalfPrecision: SixteenBits {
  static var name: String { "F16" }
  static var exponent: UInt16 { 0x7C00 }
  /// 65520: half a step above the largest number.
  static var overflow: UInt32 { 0x477F_F000 }

  static func widen(_ count: Int, _ bits: UnsafePointer<UInt16>, into values: UnsafeMutablePointer<Float>) {
    Kernels.active.widen_f16(count, bits, values)
  }

  @inline(__always)
  static func rounded(_ value: Float) -> UInt16 {
    let sign = value.bitPattern >> 16 & 0x8000
    let size = value.bitPattern & 0x7FFF_FFFF
    // The exponent's bias goes from 127 to 15, the fraction from 23 bits to 10.
    let normal = (size &- 112 << 23 &+ 0xFFF &+ (size >> 13 & 1)) >> 13
    // Below 2⁻¹⁴, steps are 2⁻²⁴. float32 has the same steps from 0.5 to 1.
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
