import CLatentDiffusionKernels

extension NumberFormat {
  /// bfloat16: the upper half of a float32.
  public static let bfloat16 = NumberFormat(BrainPrecision.self)
}

/// bfloat16: the upper half of float32.
enum BrainPrecision: SixteenBits {
  static var name: String { "BF16" }
  static var exponent: UInt16 { 0x7F80 }
  static var overflow: UInt32 { 0x7F7F_8000 }

  static func widen(_ count: Int, _ bits: UnsafePointer<UInt16>, into values: UnsafeMutablePointer<Float>) {
    Kernels.active.widen_bf16(count, bits, values)
  }

  @inline(__always)
  static func rounded(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    let nearest = (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16
    return UInt16(truncatingIfNeeded: bits & 0x7FFF_FFFF > 0x7F80_0000 ? 0x7FC0 : nearest)
  }
}
