extension NumberFormat {
  /// Floats of 8 bits, which can be read but not written.
  static let smallFloats = [NumberFormat(E4M3.self), NumberFormat(E5M2.self), NumberFormat(E4M3FNUZ.self), NumberFormat(E5M2FNUZ.self)]
}

/// A float of 8 bits. Half precision holds all its values exactly, so panels use it.
///
/// Source: Micikevicius et al. 2022, "FP8 formats for deep learning" (arXiv:2209.05433); the variants without negative zero (`FNUZ`): Noune et al.
/// 2022 (arXiv:2206.02915), as PyTorch has them.
protocol SmallFloat: NumberCoding {
  static var mantissaBits: Int { get }
  static var bias: Int { get }
  /// The variant whose only special value is NaN, where a negative zero would be.
  static var isFNUZ: Bool { get }
  /// The value of every byte.
  static var table: [Float] { get }
}

extension SmallFloat {
  static var blockBytes: Int { 1 }
  static var packedAs: NumberFormat { .float16 }

  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    table.withUnsafeBufferPointer { table in
      for index in 0..<blocks { values[index] = table[Int(source.load(fromByteOffset: index, as: UInt8.self))] }
    }
  }

  fileprivate static func value(_ byte: UInt8) -> Float {
    let exponent = Int(byte & 0x7F) >> mantissaBits, mantissa = Int(byte) & (1 << mantissaBits - 1)
    let sign: FloatingPointSign = byte & 0x80 == 0 ? .plus : .minus
    if isFNUZ, byte == 0x80 { return .nan }
    // E4M3 has one NaN and no infinity; E5M2 has both, as IEEE formats do.
    if !isFNUZ, byte & 0x7F == 0x7F { return .nan }
    if !isFNUZ, mantissaBits == 2, exponent == 31 {
      return mantissa == 0 ? Float(signOf: sign == .plus ? 1 : -1, magnitudeOf: .infinity) : .nan
    }
    let whole = exponent == 0 ? mantissa : mantissa + 1 << mantissaBits
    return Float(sign: sign, exponent: max(exponent, 1) - bias - mantissaBits, significand: Float(whole))
  }
}

private enum E4M3: SmallFloat {
  static var name: String { "F8_E4M3" }
  static var mantissaBits: Int { 3 }
  static var bias: Int { 7 }
  static var isFNUZ: Bool { false }
  static let table = (0...UInt8.max).map(value)
}

private enum E5M2: SmallFloat {
  static var name: String { "F8_E5M2" }
  static var mantissaBits: Int { 2 }
  static var bias: Int { 15 }
  static var isFNUZ: Bool { false }
  static let table = (0...UInt8.max).map(value)
}

private enum E4M3FNUZ: SmallFloat {
  static var name: String { "F8_E4M3FNUZ" }
  static var mantissaBits: Int { 3 }
  static var bias: Int { 8 }
  static var isFNUZ: Bool { true }
  static let table = (0...UInt8.max).map(value)
}

private enum E5M2FNUZ: SmallFloat {
  static var name: String { "F8_E5M2FNUZ" }
  static var mantissaBits: Int { 2 }
  static var bias: Int { 16 }
  static var isFNUZ: Bool { true }
  static let table = (0...UInt8.max).map(value)
}
