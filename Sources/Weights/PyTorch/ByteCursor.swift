import Foundation

/// Reads bytes from first to last. What is not there is an error, and nothing is copied.
struct ByteCursor {
  let bytes: Data
  private(set) var position: Int

  init(_ bytes: Data) { (self.bytes, position) = (bytes, bytes.startIndex) }

  /// How many bytes are left.
  var rest: Int { bytes.endIndex - position }

  mutating func take(_ count: UInt64) throws(PickleProblem) -> Data {
    guard let count = Int(exactly: count), count <= rest else { throw .malformed("it ends early") }
    defer { position += count }
    return bytes[position..<position + count]
  }

  mutating func byte() throws(PickleProblem) -> UInt8 {
    guard rest > 0 else { throw .malformed("it ends early") }
    defer { position += 1 }
    return bytes[position]
  }

  /// A whole number without a sign, its lowest byte first.
  /// - Parameter count: 1 to 8.
  mutating func number(_ count: Int) throws(PickleProblem) -> UInt64 {
    try take(UInt64(count)).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// The bytes up to the next line feed, which is left out.
  mutating func line() throws(PickleProblem) -> Data {
    guard let end = bytes[position...].firstIndex(of: 0x0A) else { throw .malformed("it ends early") }
    defer { position = end + 1 }
    return bytes[position..<end]
  }
}
