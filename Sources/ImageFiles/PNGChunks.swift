/// The chunks of a PNG file, in order.
///
/// The specification is W3C's Portable Network Graphics: a signature, then chunks of length, type, payload and checksum.
package struct PNGChunks {
  package struct Chunk {
    package let type: String
    package let payload: Range<Int>

    /// The range of the payload with its length, type and checksum.
    package var whole: Range<Int> { payload.lowerBound - 8..<payload.upperBound + 4 }
  }

  package static let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]

  package let bytes: [UInt8]
  package let chunks: [Chunk]
  package let width: Int
  package let height: Int
  /// Bits a channel.
  let depth: Int
  /// Whether pixels have alpha, as a channel or by a transparent colour.
  let hasAlpha: Bool

  package init(_ bytes: [UInt8], name: String) throws(ImageFileError) {
    var chunks: [Chunk] = []
    var offset = Self.signature.count
    repeat {
      guard let length = bytes.integer(at: offset, bytes: 4), let type = bytes.slice(at: offset + 4, count: 4),
        bytes.slice(at: offset + 8, count: length + 4) != nil
      else { throw .damaged(name: name, reason: "the file ends early") }
      chunks.append(Chunk(type: String(decoding: type, as: UTF8.self), payload: offset + 8..<offset + 8 + length))
      offset += length + 12
    } while chunks.last?.type != "IEND"
    self.bytes = bytes
    self.chunks = chunks
    // The picture cannot be shown without a chunk whose type begins with a capital letter.
    if let wrong = chunks.first(where: { $0.type.first?.isUppercase == true && !Self.isIntact($0, in: bytes) }) {
      throw .damaged(name: name, reason: "the checksum of its part \(wrong.type) is wrong")
    }
    guard let header = chunks.first, header.type == "IHDR", header.payload.count == 13,
      let width = bytes.integer(at: header.payload.lowerBound, bytes: 4), width > 0,
      let height = bytes.integer(at: header.payload.lowerBound + 4, bytes: 4), height > 0
    else { throw .damaged(name: name, reason: "its header is wrong") }
    self.width = width
    self.height = height
    depth = Int(bytes[header.payload.lowerBound + 8])
    let colourType = bytes[header.payload.lowerBound + 9]
    hasAlpha = colourType & 4 != 0 || chunks.contains { $0.type == "tRNS" }
  }

  /// The file with only those chunks that make up the pixels as they are stored. Chunks that describe a colour space would make a decoder
  /// convert the pixels.
  var withoutColourSpace: [UInt8] {
    let kept: Set<String> = ["IHDR", "PLTE", "tRNS", "IDAT", "IEND"]
    return Self.signature + chunks.filter { kept.contains($0.type) }.flatMap { bytes[$0.whole] }
  }

  /// The orientation of the picture, from its `eXIf` chunk.
  var orientation: Orientation? {
    chunks.first { $0.type == "eXIf" && isIntact($0) }.flatMap { Orientation(exif: Array(bytes[$0.payload])) }
  }

  /// The value of the first text chunk of this keyword. Compressed chunks (`zTXt`, or `iTXt` with its flag set) are ignored.
  package func text(_ keyword: String) -> String? {
    for chunk in chunks where isIntact(chunk) {
      let payload = bytes[chunk.payload]
      guard payload.starts(with: Array(keyword.utf8) + [0]) else { continue }
      let rest = payload.dropFirst(keyword.utf8.count + 1)
      if chunk.type == "tEXt" {
        return String(String.UnicodeScalarView(rest.map { UnicodeScalar($0) }))
      }
      // A flag and a method of compression, then a language and a translated keyword that each end in 0.
      guard chunk.type == "iTXt", rest.first == 0 else { continue }
      let parts = rest.dropFirst(2).split(separator: 0, maxSplits: 2, omittingEmptySubsequences: false)
      if parts.count == 3 { return String(decoding: parts[2], as: UTF8.self) }
    }
    return nil
  }

  /// The file with a text chunk before its pixels.
  func adding(text: String, keyword: String) -> [UInt8] {
    let position = chunks.first { $0.type == "IDAT" }?.whole.lowerBound ?? bytes.count
    return bytes[..<position] + Self.chunk(text: text, keyword: keyword) + bytes[position...]
  }

  /// A text chunk: `tEXt` if the text is Latin-1, and `iTXt` otherwise.
  package static func chunk(text: String, keyword: String) -> [UInt8] {
    let scalars = text.unicodeScalars.filter { $0 != "\0" }
    let isLatin1 = scalars.allSatisfy { $0.value < 256 }
    let value = isLatin1 ? scalars.map { UInt8(truncatingIfNeeded: $0.value) } : Array(String(String.UnicodeScalarView(scalars)).utf8)
    let head = Array(keyword.utf8) + (isLatin1 ? [0] : [0, 0, 0, 0, 0])
    return chunk(isLatin1 ? "tEXt" : "iTXt", head + value)
  }

  /// A chunk with its length and its checksum.
  package static func chunk(_ type: String, _ payload: [UInt8]) -> [UInt8] {
    let body = Array(type.utf8) + payload
    return payload.count.bigEndian(bytes: 4) + body + Int(checksum(body)).bigEndian(bytes: 4)
  }

  /// Whether the checksum of a chunk is right.
  package func isIntact(_ chunk: Chunk) -> Bool { Self.isIntact(chunk, in: bytes) }

  private static func isIntact(_ chunk: Chunk, in bytes: [UInt8]) -> Bool {
    bytes.integer(at: chunk.payload.upperBound, bytes: 4) == Int(checksum(bytes[chunk.payload.lowerBound - 4..<chunk.payload.upperBound]))
  }
}

/// The 32-bit cyclic redundancy check that ends a chunk.
private func checksum(_ bytes: some Sequence<UInt8>) -> UInt32 {
  ~bytes.reduce(~0) { checksumTable[Int(($0 ^ UInt32($1)) & 0xFF)] ^ ($0 >> 8) }
}

private let checksumTable: [UInt32] = (0..<256).map { byte in
  (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? 0xEDB8_8320 ^ (value >> 1) : value >> 1 }
}
