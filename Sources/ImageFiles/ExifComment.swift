/// A block of EXIF with nothing but a comment, which is where stable-diffusion-webui keeps generation parameters in JPEG and WebP files: the tag
/// `UserComment` (0x9286), with the mark `UNICODE` and UTF-16.
package enum ExifComment {
  private static let exifDirectory = 0x8769, userComment = 0x9286
  private static let mark = Array("UNICODE\0".utf8)

  /// A TIFF structure: a directory with the place of the EXIF directory, then that one with the comment. All numbers have their highest byte first.
  package static func block(_ text: String) -> [UInt8] {
    let value = mark + text.utf16.flatMap { Int($0).bigEndian(bytes: 2) }
    func directory(_ tag: Int, type: Int, count: Int, value: Int) -> [UInt8] {
      [(1, 2), (tag, 2), (type, 2), (count, 4), (value, 4), (0, 4)].flatMap { $0.bigEndian(bytes: $1) }
    }
    let header = Array("MM\0*".utf8) + 8.bigEndian(bytes: 4)
    // A directory of one entry has 18 bytes.
    return header + directory(exifDirectory, type: 4, count: 1, value: 26) + directory(userComment, type: 7, count: value.count, value: 44)
      + value
  }

  /// The comment of such a block in either order of bytes; nil if it has none. Some writers put JPEG's mark before the block.
  package static func text(of bytes: [UInt8]) -> String? {
    let bytes = bytes.has("Exif\0\0", at: 0) ? Array(bytes.dropFirst(6)) : bytes
    let isLittle = bytes.has("II*\0", at: 0)
    guard isLittle || bytes.has("MM\0*", at: 0) else { return nil }
    /// The count and the value of a tag.
    func entry(_ tag: Int, directory: Int) -> (count: Int, value: Int)? {
      guard let entries = bytes.integer(at: directory, bytes: 2, littleEndian: isLittle) else { return nil }
      for start in (0..<entries).map({ directory + 2 + $0 * 12 }) {
        guard let found = bytes.integer(at: start, bytes: 2, littleEndian: isLittle),
          let count = bytes.integer(at: start + 4, bytes: 4, littleEndian: isLittle),
          let value = bytes.integer(at: start + 8, bytes: 4, littleEndian: isLittle)
        else { return nil }
        if found == tag { return (count, value) }
      }
      return nil
    }
    guard let first = bytes.integer(at: 4, bytes: 4, littleEndian: isLittle), let exif = entry(exifDirectory, directory: first),
      let comment = entry(userComment, directory: exif.value), let value = bytes.slice(at: comment.value, count: comment.count),
      value.starts(with: mark)
    else { return nil }
    let letters = Array(value.dropFirst(mark.count))
    let units = stride(from: 0, to: letters.count - 1, by: 2).compactMap { letters.integer(at: $0, bytes: 2, littleEndian: isLittle) }
    return String(decoding: units.map { UInt16(truncatingIfNeeded: $0) }, as: UTF16.self)
  }
}
