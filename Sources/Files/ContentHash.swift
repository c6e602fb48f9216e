import Foundation

/// 64 bits that stand for a content: contents that differ have different ones, but for a chance of about one in 10¹⁹.
///
/// It tells changes from one another and is no protection against somebody who looks for two contents with the same hash.
/// Source: FNV-1a of 64 bits (Fowler, Noll and Vo 1991).
public struct ContentHash: Sendable, Hashable, Codable, CustomStringConvertible {
  @usableFromInline var bits: UInt64 = 0xCBF2_9CE4_8422_2325

  /// Of nothing.
  public init() {}

  /// Of a text.
  public init(_ text: String) { add(text) }

  /// Of files, by their lengths and by up to 64 pieces of each that lie evenly spread. So the hash of a model's weights takes milliseconds, and does not
  /// depend on where the files are or when they were written.
  ///
  /// - Parameter files: in an order that is always the same.
  /// - Throws: `FileReadError`.
  public init(sampling files: [URL]) throws(FileReadError) {
    for url in files {
      let data = try Data(mapping: url)
      add(data.count)
      let piece = 4096, pieces = min(64, (data.count + piece - 1) / piece)
      for index in 0..<pieces {
        let start = max(data.count - piece, 0) * index / max(pieces - 1, 1)
        add(data.dropFirst(start).prefix(piece))
      }
    }
  }

  /// Adds bytes. What is added does not say where it ends: add its length, too, where that could be mistaken.
  @inlinable public mutating func add(_ bytes: some Sequence<UInt8>) { add(words: bytes) }

  /// Adds words, each as a whole.
  @inlinable public mutating func add(words: some Sequence<some FixedWidthInteger & UnsignedInteger>) {
    var bits = bits
    for word in words { bits = (bits ^ UInt64(truncatingIfNeeded: word)) &* 0x100_0000_01B3 }
    self.bits = bits
  }

  /// Adds a number.
  public mutating func add(_ number: Int) { add((0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }) }

  /// Adds a text and its length.
  public mutating func add(_ text: String) {
    add(text.utf8.count)
    add(text.utf8)
  }

  /// Adds another hash.
  public mutating func add(_ other: ContentHash) { add(Int(truncatingIfNeeded: other.bits)) }

  /// 16 hexadecimal digits.
  public var description: String {
    let digits = String(bits, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  /// - Throws: `DecodingError.dataCorrupted` where the text is not what `description` gives.
  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    guard let bits = UInt64(text, radix: 16), text.count == 16, !text.hasPrefix("+") else {
      throw DecodingError.dataCorrupted(.init(codingPath: decoder.codingPath, debugDescription: "\(text) is no hash of 16 digits."))
    }
    self.bits = bits
  }

  /// As 16 hexadecimal digits.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
