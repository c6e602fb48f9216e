/// The part of a JPEG file before its pixels (ITU-T T.81, annex B).
struct JPEGMarkers {
  static let signature: [UInt8] = [0xFF, 0xD8, 0xFF]

  let width: Int
  let height: Int
  /// 1 for grey, 3 for colour, 4 for printing inks.
  let components: Int
  let orientation: Orientation?

  init(_ bytes: [UInt8], name: String) throws(ImageFileError) {
    var orientation: Orientation?
    var offset = 2
    while let (marker, payload) = Self.segment(of: bytes, at: offset) {
      switch marker {
      case 0xC0...0xC3, 0xC5...0xC7, 0xC9...0xCB, 0xCD...0xCF:
        let start = payload.lowerBound
        guard let height = bytes.integer(at: start + 1, bytes: 2), height > 0,
          let width = bytes.integer(at: start + 3, bytes: 2), width > 0, let components = bytes.integer(at: start + 5, bytes: 1)
        else { throw .damaged(name: name, reason: "its frame header is wrong") }
        (self.width, self.height, self.components) = (width, height, components)
        self.orientation = orientation
        return
      case 0xE1:
        let head = Array("Exif\0\0".utf8)
        if orientation == nil, bytes[payload].starts(with: head) {
          orientation = Orientation(exif: Array(bytes[payload].dropFirst(head.count)))
        }
      default: break
      }
      offset = payload.upperBound
    }
    throw .damaged(name: name, reason: "no picture is found before its end")
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
