extension NumberFormat {
  /// 4 bits, in blocks of 32 values with a common scale. A block has 18 bytes: a scale d in half precision, then 16 bytes of two numbers q, those of values i
  /// and i + 16. A value is d · (q - 8). Source: GGUF's `Q4_0`.
  public static let q4 = NumberFormat(Q4_0.self)

  /// GGUF's other blocks of 32 values, which are read and not written.
  static let smallBlocks = [NumberFormat(Q4_1.self), NumberFormat(Q5_0.self), NumberFormat(Q5_1.self)]
}

/// Blocks of 32 values of 4 or 5 bits: numbers in half precision, for 5 bits a word of fifth bits, and 16 bytes of two numbers each. Source: GGUF.
private protocol SmallBlocks: GroupedNumbers {}

extension SmallBlocks {
  static var blockValues: Int { 32 }
  static var groupValues: Int { blockValues }
  static var scaleOffset: Int { 0 }
  /// Where the word of fifth bits is, or the numbers if there is none.
  private static var wordOffset: Int { minimumOffset.map { $0 + 2 } ?? 2 }
  static var blockBytes: Int { wordOffset + (bits == 5 ? 4 : 0) + 16 }

  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>) {
    let pairs = block + (blockBytes - 16)
    let fifth = bits == 5 ? block.loadUnaligned(fromByteOffset: wordOffset, as: UInt32.self) : 0
    for index in 0..<16 {
      let pair = pairs.load(fromByteOffset: index, as: UInt8.self)
      numbers[index] = pair & 15 | UInt8(fifth >> UInt32(index) & 1) << 4
      numbers[index + 16] = pair >> 4 | UInt8(fifth >> UInt32(index + 16) & 1) << 4
    }
  }
}

private enum Q4_0: SmallBlocks, WritableNumbers {
  static var name: String { "Q4_0" }
  static var bits: Int { 4 }
  static var zero: Int { 8 }

  /// d is the value of the largest magnitude divided by -8, and q is x / d + 8.5 without its fraction. Source: gguf's `quantize`.
  static func encode(_ blocks: Int, of values: UnsafePointer<Float>, into target: UnsafeMutableRawPointer) -> Bool {
    var fits = true
    for index in 0..<blocks {
      let x = values + index * blockValues, block = target + index * blockBytes
      var most: Float = 0
      for value in 0..<blockValues where x[value].magnitude > most.magnitude { most = x[value] }
      let scale = most / -8, bits = HalfPrecision.rounded(scale)
      if bits & HalfPrecision.exponent == HalfPrecision.exponent { fits = false }
      block.storeBytes(of: bits, as: UInt16.self)
      // The smallest numbers have no inverse. In half precision they are zero.
      let inverse = scale != 0 && (1 / scale).isFinite ? 1 / scale : 0
      func number(_ value: Float) -> UInt8 { UInt8(min(max(value * inverse + 8.5, 0), 15)) }
      for pair in 0..<16 {
        block.storeBytes(of: number(x[pair]) | number(x[pair + 16]) << 4, toByteOffset: 2 + pair, as: UInt8.self)
      }
    }
    return fits
  }
}

private enum Q4_1: SmallBlocks {
  static var name: String { "Q4_1" }
  static var bits: Int { 4 }
  static var zero: Int { 0 }
  static var minimumOffset: Int? { 2 }
}

private enum Q5_0: SmallBlocks {
  static var name: String { "Q5_0" }
  static var bits: Int { 5 }
  static var zero: Int { 16 }
}

private enum Q5_1: SmallBlocks {
  static var name: String { "Q5_1" }
  static var bits: Int { 5 }
  static var zero: Int { 0 }
  static var minimumOffset: Int? { 2 }
}
