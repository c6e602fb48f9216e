/// Integers from the bytes of a file; nil if the bytes end before.
extension [UInt8] {
  package func integer(at offset: Int, bytes: Int, littleEndian: Bool = false) -> Int? {
    guard let slice = slice(at: offset, count: bytes) else { return nil }
    return littleEndian
      ? slice.reversed().reduce(0) { $0 << 8 | Int($1) }
      : slice.reduce(0) { $0 << 8 | Int($1) }
  }

  package func slice(at offset: Int, count length: Int) -> ArraySlice<UInt8>? {
    guard offset >= 0, length >= 0, offset <= count, length <= count - offset else { return nil }
    return self[offset..<offset + length]
  }

  /// Whether these characters stand there.
  package func has(_ text: String, at offset: Int) -> Bool { dropFirst(offset).starts(with: Array(text.utf8)) }
}

extension Int {
  /// The lowest `count` bytes, the highest first.
  package func bigEndian(bytes count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: self >> (8 * (count - 1 - $0))) }
  }
}
