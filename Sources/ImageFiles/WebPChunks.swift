/// The parts of a WebP file beside its pixels (RFC 9649, section 2).
///
/// A file is a RIFF container: chunks of a type, a length and a payload, which is padded to an even length.
struct WebPChunks {
  let width: Int
  let height: Int
  let hasAlpha: Bool
  let isAnimated: Bool
  /// The block of EXIF.
  let exif: [UInt8]?
  var orientation: Orientation? { exif.flatMap { Orientation(exif: $0) } }

  static func isSignature(of bytes: [UInt8]) -> Bool { bytes.has("RIFF", at: 0) && bytes.has("WEBP", at: 8) }

  init(_ bytes: [UInt8], name: String) throws(ImageFileError) {
    guard let length = bytes.integer(at: 4, bytes: 4, littleEndian: true), length >= 4, bytes.slice(at: 8, count: length) != nil
    else { throw .damaged(name: name, reason: "the file ends early") }
    let chunks = Self.chunks(of: bytes, in: 12..<8 + length)
    guard let first = chunks.first, let size = Self.size(of: first, in: bytes)
    else { throw .damaged(name: name, reason: "its header is wrong") }
    (width, height) = size
    let flags = first.type == "VP8X" ? bytes[first.payload.lowerBound] : 0
    isAnimated = flags & 0x02 != 0
    hasAlpha = chunks.contains { $0.type == "ALPH" || $0.type == "VP8L" && Self.hasAlpha(lossless: $0, in: bytes) }
    // Some writers put JPEG's mark before the block.
    let block = chunks.first { $0.type == "EXIF" }.map { Array(bytes[$0.payload]) }
    exif = block.map { $0.starts(with: exifMark) ? Array($0.dropFirst(exifMark.count)) : $0 }
  }

  /// A still picture's file with a block of EXIF: its chunks behind one that says what the file has (VP8X).
  static func adding(exif block: [UInt8], to file: [UInt8]) throws(ImageFileError) -> [UInt8] {
    let header = try WebPChunks(file, name: "The picture")
    let plain = chunks(of: file, in: 12..<file.count).filter { !["VP8X", "EXIF"].contains($0.type) }.flatMap {
      chunk($0.type, file[$0.payload])
    }
    let flags = 0x08 | (header.hasAlpha ? 0x10 : 0)
    let sides = [header.width - 1, header.height - 1].flatMap { $0.bigEndian(bytes: 3).reversed() }
    let described: [UInt8] = [UInt8(flags), 0, 0, 0] + sides
    var body = Array("WEBP".utf8) + chunk("VP8X", described[...])
    body += plain + chunk("EXIF", block[...])
    return chunk("RIFF", body[...])
  }

  /// A chunk with its type and length, filled up to an even length.
  private static func chunk(_ type: String, _ payload: ArraySlice<UInt8>) -> [UInt8] {
    Array(type.utf8) + payload.count.bigEndian(bytes: 4).reversed() + payload + (payload.count.isMultiple(of: 2) ? [] : [0])
  }

  private struct Chunk {
    let type: String
    let payload: Range<Int>
  }

  /// All chunks up to the first one that does not fit.
  private static func chunks(of bytes: [UInt8], in range: Range<Int>) -> [Chunk] {
    var chunks: [Chunk] = []
    var offset = range.lowerBound
    while offset <= range.upperBound - 8, let type = bytes.slice(at: offset, count: 4),
      let length = bytes.integer(at: offset + 4, bytes: 4, littleEndian: true), offset + 8 + length <= range.upperBound
    {
      chunks.append(Chunk(type: String(decoding: type, as: UTF8.self), payload: offset + 8..<offset + 8 + length))
      offset += 8 + length + length % 2
    }
    return chunks
  }

  /// What the first chunk says: the canvas of an extended file (VP8X), or the frame of lossy (VP8) or lossless (VP8L) pixels.
  private static func size(of chunk: Chunk, in bytes: [UInt8]) -> (width: Int, height: Int)? {
    let start = chunk.payload.lowerBound
    func integer(_ offset: Int, _ count: Int) -> Int? {
      offset + count <= chunk.payload.count ? bytes.integer(at: start + offset, bytes: count, littleEndian: true) : nil
    }
    switch chunk.type {
    case "VP8X":
      guard let width = integer(4, 3), let height = integer(7, 3) else { return nil }
      return (width + 1, height + 1)
    case "VP8 ":
      // The two highest bits of a side ask for a larger picture on the screen.
      guard integer(3, 3) == 0x2A019D, let width = integer(6, 2), let height = integer(8, 2) else { return nil }
      return width & 0x3FFF > 0 && height & 0x3FFF > 0 ? (width & 0x3FFF, height & 0x3FFF) : nil
    case "VP8L":
      guard integer(0, 1) == 0x2F, let sides = integer(1, 4) else { return nil }
      return (sides & 0x3FFF + 1, sides >> 14 & 0x3FFF + 1)
    default: return nil
    }
  }

  private static func hasAlpha(lossless chunk: Chunk, in bytes: [UInt8]) -> Bool {
    chunk.payload.count >= 5 && bytes[chunk.payload.lowerBound + 4] & 0x10 != 0
  }
}
