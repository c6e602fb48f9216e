import Foundation
import Tensor

/// The header of a GGUF file: its description of itself, and where its tensors are. Source: the format's specification in ggml's documentation.
struct GGUFHeader {
  struct Entry {
    let name: String
    /// Innermost first, as in the file.
    let extents: [Int]
    let elementType: UInt32
    /// Where the tensor's bytes are, counted from the beginning of all tensors' bytes.
    let begin: Int
  }

  /// A problem of a header, as the end of a sentence.
  struct Problem: Error { let reason: String }

  /// Why a file with another header is not read.
  struct Unsupported: Error { let reason: String }

  static let signature = Data("GGUF".utf8)
  static let usualAlignment = 32
  /// The key for the alignment.
  static let alignmentKey = "general.alignment"
  /// No name is longer. The limits protect the code that looks names up, and messages.
  private static let longestName = 4096, longestKey = 65_535
  /// Longer arrays, such as vocabularies, are counted and not kept.
  private static let longestArray = 64
  static let mostExtents = 4
  /// The type of texts.
  static let textType: UInt32 = 8

  /// By key, as text. An array is its elements with commas between them, or `[N values]` if it is long.
  private(set) var metadata: [String: String] = [:]
  private(set) var entries: [Entry] = []
  private(set) var alignment = Self.usualAlignment
  /// The bytes of the header.
  private(set) var bytes = 0

  /// - Throws: `Problem`, `Unsupported`.
  init(_ file: Data) throws {
    var scanner = GGUFScanner(file)
    guard try scanner.bytes(4) == Self.signature else { throw Problem(reason: "it does not begin with GGUF") }
    let version = try scanner.number(UInt32.self)
    guard version & 0xFFFF != 0 else { throw Unsupported(reason: "in big-endian order") }
    guard version == 2 || version == 3 else { throw Unsupported(reason: "of version \(version)") }
    let tensors = try scanner.number(UInt64.self), values = try scanner.number(UInt64.self)
    // Each takes some bytes, so a count that is too large ends at the end of the file.
    for index in 0..<values { try readValue(index, &scanner) }
    var names: Set<String> = []
    for index in 0..<tensors {
      let entry = try Self.entry(index, &scanner)
      guard names.insert(entry.name).inserted else { throw Problem(reason: "the tensor \(entry.name) occurs twice") }
      entries.append(entry)
    }
    bytes = scanner.position
  }

  private mutating func readValue(_ index: UInt64, _ scanner: inout GGUFScanner) throws(Problem) {
    let key = try scanner.string(most: Self.longestKey, "key \(index)")
    guard metadata[key] == nil else { throw Problem(reason: "the key \(key) occurs twice") }
    let type = try scanner.number(UInt32.self)
    let value = try Self.value(type, of: key, depth: 0, &scanner)
    metadata[key] = value
    guard key == Self.alignmentKey else { return }
    guard let alignment = Int(value), alignment > 0, alignment & (alignment - 1) == 0, alignment <= 1 << 30 else {
      throw Problem(reason: "\(key) is \(value), which is no power of two")
    }
    self.alignment = alignment
  }

  /// A value as text.
  private static func value(_ type: UInt32, of key: String, depth: Int, _ scanner: inout GGUFScanner) throws(Problem) -> String {
    switch type {
    case 0: return try "\(scanner.number(UInt8.self))"
    case 1: return try "\(scanner.number(Int8.self))"
    case 2: return try "\(scanner.number(UInt16.self))"
    case 3: return try "\(scanner.number(Int16.self))"
    case 4: return try "\(scanner.number(UInt32.self))"
    case 5: return try "\(scanner.number(Int32.self))"
    case 6: return try "\(Float(bitPattern: scanner.number(UInt32.self)))"
    case 7: return try scanner.number(UInt8.self) == 0 ? "false" : "true"
    case textType: return try scanner.string(most: Int.max, key)
    case 9: return try array(of: key, depth: depth, &scanner)
    case 10: return try "\(scanner.number(UInt64.self))"
    case 11: return try "\(scanner.number(Int64.self))"
    case 12: return try "\(Double(bitPattern: scanner.number(UInt64.self)))"
    default: throw Problem(reason: "\(key) has values of the unknown type \(type)")
    }
  }

  private static func array(of key: String, depth: Int, _ scanner: inout GGUFScanner) throws(Problem) -> String {
    guard depth < 4 else { throw Problem(reason: "\(key) has arrays in arrays in arrays") }
    let type = try scanner.number(UInt32.self), count = try scanner.number(UInt64.self)
    guard count <= longestArray else {
      if let size = sizes[type] {
        try scanner.skip(count, of: size)
      } else {
        for _ in 0..<count { _ = try value(type, of: key, depth: depth + 1, &scanner) }
      }
      return "[\(count) values]"
    }
    var kept: [String] = []
    for _ in 0..<count { kept.append(try value(type, of: key, depth: depth + 1, &scanner)) }
    return kept.joined(separator: ",")
  }

  /// The bytes of the types of numbers.
  private static let sizes: [UInt32: Int] = [0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8]

  private static func entry(_ index: UInt64, _ scanner: inout GGUFScanner) throws(Problem) -> Entry {
    let name = try scanner.string(most: longestName, "the name of tensor \(index)")
    let rank = try scanner.number(UInt32.self)
    guard rank <= mostExtents else { throw Problem(reason: "the tensor \(name) has \(rank) extents; at most \(mostExtents) are possible") }
    var extents: [Int] = []
    for _ in 0..<rank {
      guard let extent = Int(exactly: try scanner.number(UInt64.self)) else { throw Problem(reason: "the tensor \(name) is too large") }
      extents.append(extent)
    }
    let type = try scanner.number(UInt32.self)
    guard let begin = Int(exactly: try scanner.number(UInt64.self)) else {
      throw Problem(reason: "the tensor \(name) begins beyond the end of the file")
    }
    return Entry(name: name, extents: extents, elementType: type, begin: begin)
  }
}

/// Reads the numbers and texts of a header one after the other.
private struct GGUFScanner {
  typealias Problem = GGUFHeader.Problem
  private let file: Data
  private(set) var position = 0

  init(_ file: Data) { self.file = file }

  mutating func bytes(_ count: Int) throws(Problem) -> Data {
    guard count <= file.count - position else { throw Problem(reason: "it ends too early") }
    let begin = file.startIndex + position
    position += count
    return file[begin..<begin + count]
  }

  mutating func skip(_ count: UInt64, of size: Int) throws(Problem) {
    let (length, overflow) = count.multipliedReportingOverflow(by: UInt64(size))
    guard !overflow, let length = Int(exactly: length) else { throw Problem(reason: "it ends too early") }
    _ = try bytes(length)
  }

  mutating func number<Number: FixedWidthInteger>(_ type: Number.Type) throws(Problem) -> Number {
    try bytes(MemoryLayout<Number>.size).reversed().reduce(0) { $0 << 8 | Number(truncatingIfNeeded: $1) }
  }

  /// - Parameter name: of what it is, for the error.
  mutating func string(most: Int, _ name: String) throws(Problem) -> String {
    let length = try number(UInt64.self)
    guard let count = Int(exactly: length), count <= most else { throw Problem(reason: "\(name) is a text of \(length) bytes") }
    guard count <= file.count - position else { throw Problem(reason: "\(name) is a text of \(length) bytes, more than the file has") }
    guard let text = String(data: try bytes(count), encoding: .utf8) else { throw Problem(reason: "\(name) is no text in UTF-8") }
    return text
  }
}
