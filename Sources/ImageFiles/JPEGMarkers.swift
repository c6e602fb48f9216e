/// The part of a JPEG file before its pixels (ITU-T T.81, annex B).
struct JPEGMarkers {
  static let signature: [UInt8] = [0xFF, 0xD8, 0xFF]

  let width: Int
  let height: Int
  /// 1 for grey, 3 for colour, 4 for printing inks.
  let components: Int
  /// The first block of EXIF.
  let exif: [UInt8]?
  var orientation: Orientation? { exif.flatMap { Orientation(exif: $0) } }

  init(_ bytes: [UInt8], name: String) throws(ImageFileError) {
    var exif: [UInt8]?
    var offset = 2
    while let (marker, payload) = Self.segment(of: bytes, at: offset) {
      switch marker {
      case 0xC0...0xC3, 0xC5...0xC7, 0xC9...0xCB, 0xCD...0xCF:
        let start = payload.lowerBound
        guard let height = bytes.integer(at: start + 1, bytes: 2), height > 0,
          let width = bytes.integer(at: start + 3, bytes: 2), width > 0, let components = bytes.integer(at: start + 5, bytes: 1)
        else { throw .damaged(name: name, reason: "its frame header is wrong") }
        (self.width, self.height, self.components) = (width, height, components)
        self.exif = exif
        return
      case 0xE1:
        if exif == nil, bytes[payload].starts(with: exifMark) { exif = Array(bytes[payload].dropFirst(exifMark.count)) }
      default: break
      }
      offset = payload.upperBound
    }
    throw .damaged(name: name, reason: "no picture is found before its end")
  }

  /// The file with a block of EXIF right behind its first mark, where readers look for it.
  /// - Returns: nil where the block is longer than a part of a file can be.
  static func adding(exif block: [UInt8], to file: [UInt8]) -> [UInt8]? {
    let length = 2 + exifMark.count + block.count
    guard length <= 0xFFFF else { return nil }
    var result = Array(file[..<2])
    result += [0xFF, 0xE1] + length.bigEndian(bytes: 2)
    result += exifMark + block
    return result + file[2...]
  }

  /// The marker at an offset, after any fill bytes, and the range of the bytes that belong to it; nil at the end of the file or where
  /// the pixels begin.
  private static func segment(of bytes: [UInt8], at offset: Int) -> (marker: UInt8, payload: Range<Int>)? {
    var offset = offset
    while offset < bytes.count, bytes[offset] != 0xFF { offset += 1 }
    while offset < bytes.count, bytes[offset] == 0xFF { offset += 1 }
    guard offset < bytes.count else { return nil }
    let marker = bytes[offset]
    switch marker {
    case 0xD9, 0xDA: return nil
    case 0x00, 0x01, 0xD0...0xD8: return (marker, offset + 1..<offset + 1)
    default:
      guard let length = bytes.integer(at: offset + 1, bytes: 2), length >= 2, bytes.slice(at: offset + 1, count: length) != nil
      else { return nil }
      return (marker, offset + 3..<offset + 1 + length)
    }
  }
}

/// Before a block of EXIF.
let exifMark = Array("Exif\0\0".utf8)
