extension NumberFormat {
  /// GGUF's blocks of 256 values, whose groups have scales of 4 to 8 bits. They are read and not written. In panels, numbers of 2 and 3 bits take 4.
  static let superBlocks = [
    NumberFormat(Q2_K.self), NumberFormat(Q3_K.self), NumberFormat(Q4_K.self), NumberFormat(Q5_K.self), NumberFormat(Q6_K.self),
  ]
}

/// Blocks of 256 values in groups of 16 or 32. Source: GGUF's "K quants".
private protocol SuperBlocks: GroupedNumbers {}

extension SuperBlocks {
  static var blockValues: Int { 256 }
  static var hasFactors: Bool { true }

  /// The bits of all values from some bit of a byte on: each 32 bytes have some bits of 32 values, then the next bits of the next 32, and so on.
  @inline(__always)
  fileprivate static func bits(_ count: Int, of value: Int, at source: UnsafeRawPointer) -> UInt8 {
    let each = 8 / count, run = value / 32
    return source.load(fromByteOffset: run / each * 32 + value % 32, as: UInt8.self) >> UInt8(run % each * count) & (1 << UInt8(count) - 1)
  }
}

private enum Q2_K: SuperBlocks {
  static var name: String { "Q2_K" }
  static var blockBytes: Int { 84 }
  static var groupValues: Int { 16 }
  static var bits: Int { 2 }
  static var zero: Int { 0 }
  static var scaleOffset: Int { 80 }
  static var minimumOffset: Int? { 82 }

  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>) {
    for value in 0..<blockValues { numbers[value] = bits(2, of: value, at: block + 16) }
    for group in 0..<16 {
      let both = block.load(fromByteOffset: group, as: UInt8.self)
      (factors[group], factors[16 + group]) = (Int8(both & 15), -Int8(both >> 4))
    }
  }
}

private enum Q3_K: SuperBlocks {
  static var name: String { "Q3_K" }
  static var blockBytes: Int { 110 }
  static var groupValues: Int { 16 }
  static var bits: Int { 3 }
  static var zero: Int { 4 }
  static var scaleOffset: Int { 108 }

  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>) {
    for value in 0..<blockValues { numbers[value] = bits(2, of: value, at: block + 32) | bits(1, of: value, at: block) << 2 }
    for group in 0..<16 {
      let lower = block.load(fromByteOffset: 96 + group % 8, as: UInt8.self) >> UInt8(group / 8 * 4) & 15
      let upper = block.load(fromByteOffset: 104 + group % 4, as: UInt8.self) >> UInt8(group / 4 * 2) & 3
      factors[group] = Int8(lower | upper << 4) - 32
    }
  }
}

/// 4 or 5 bits with scales and minima of 6 bits for each of eight groups.
private protocol MinimumBlocks: SuperBlocks {}

extension MinimumBlocks {
  static var blockBytes: Int { 16 + 32 * bits }
  static var groupValues: Int { 32 }
  static var zero: Int { 0 }
  static var scaleOffset: Int { 0 }
  static var minimumOffset: Int? { 2 }

  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>) {
    let pairs = block + (blockBytes - 128)
    for value in 0..<blockValues { numbers[value] = bits(4, of: value, at: pairs) }
    if bits == 5 { for value in 0..<blockValues { numbers[value] |= bits(1, of: value, at: block + 16) << 4 } }
    for group in 0..<4 {
      func byte(_ index: Int) -> UInt8 { block.load(fromByteOffset: 4 + index + group, as: UInt8.self) }
      let (scale, minimum, lower) = (byte(0), byte(4), byte(8))
      // The upper two bits of the last four groups are those of the bytes of the first four.
      (factors[group], factors[8 + group]) = (Int8(scale & 63), -Int8(minimum & 63))
      (factors[4 + group], factors[12 + group]) = (Int8(lower & 15 | (scale >> 6) << 4), -Int8(lower >> 4 | (minimum >> 6) << 4))
    }
  }
}

private enum Q4_K: MinimumBlocks {
  static var name: String { "Q4_K" }
  static var bits: Int { 4 }
}

private enum Q5_K: MinimumBlocks {
  static var name: String { "Q5_K" }
  static var bits: Int { 5 }
}

private enum Q6_K: SuperBlocks {
  static var name: String { "Q6_K" }
  static var blockBytes: Int { 210 }
  static var groupValues: Int { 16 }
  static var bits: Int { 6 }
  static var zero: Int { 32 }
  static var scaleOffset: Int { 208 }

  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>) {
    for value in 0..<blockValues {
      // Each half of the block has 64 bytes of the lower four bits: first those of 64 values, then of the next 64.
      let (half, place) = (value / 128, value % 128)
      let lower = block.load(fromByteOffset: half * 64 + place % 64, as: UInt8.self) >> UInt8(place / 64 * 4) & 15
      numbers[value] = lower | bits(2, of: value, at: block + 128) << 4
    }
    for group in 0..<16 { factors[group] = block.load(fromByteOffset: 192 + group, as: Int8.self) }
  }
}
