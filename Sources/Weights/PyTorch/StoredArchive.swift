import Foundation

/// A ZIP archive whose entries are stored as they are, as `torch.save` writes them. Entries are slices of the archive.
///
/// Entries that are compressed or encrypted, that leave the archive or share bytes are refused, so nothing is ever larger than the file.
/// Source: PKWARE's APPNOTE.TXT 6.3, with its ZIP64 extension.
struct StoredArchive {
  /// By name.
  let entries: [String: Data]

  private static let endSignature = Data([0x50, 0x4B, 0x05, 0x06])
  private static let locatorSignature: UInt64 = 0x0706_4B50
  private static let wideEndSignature: UInt64 = 0x0606_4B50
  private static let directorySignature: UInt64 = 0x0201_4B50
  private static let localSignature: UInt64 = 0x0403_4B50

  /// - Parameter file: the archive from its first byte to its last.
  init(_ file: Data) throws(PickleProblem) {
    let directory = try Self.directory(of: file)
    var cursor = ByteCursor(directory.bytes)
    var records: [Record] = []
    while cursor.rest > 0 { records.append(try Record(&cursor)) }
    guard records.count == directory.entries else { throw .malformed("its archive does not have as many entries as it says") }
    var entries: [String: Data] = [:]
    var end: UInt64 = 0
    for record in records.sorted(by: { $0.begin < $1.begin }) {
      guard record.begin >= end else { throw .malformed("the entry \(record.name) of its archive shares bytes with another") }
      let contents = try record.contents(in: file.prefix(upTo: directory.bytes.startIndex))
      end = UInt64(contents.endIndex - file.startIndex)
      guard entries.updateValue(contents, forKey: record.name) == nil else {
        throw .malformed("its archive has the entry \(record.name) twice")
      }
    }
    self.entries = entries
  }

  /// The central directory, and how many entries it says that it has.
  private static func directory(of file: Data) throws(PickleProblem) -> (bytes: Data, entries: Int) {
    // Only a comment of at most 65535 bytes can follow the end record.
    guard let end = file.suffix(22 + 65535).range(of: endSignature, options: .backwards)?.lowerBound else {
      throw .malformed("its archive has no directory, so it is truncated")
    }
    var record = ByteCursor(file[end...])
    _ = try record.take(10)
    var (entries, size, offset) = (try record.number(2), try record.number(4), try record.number(4))
    guard try record.number(2) == record.rest else { throw .malformed("the comment of its archive is not as long as it says") }
    var limit = end
    if end - file.startIndex >= 20 {
      var locator = ByteCursor(file[(end - 20)..<end])
      if try locator.number(4) == locatorSignature {
        _ = try locator.take(4)
        (entries, size, offset, limit) = try wideEnd(of: file.prefix(upTo: end - 20), at: locator.number(8))
      }
    }
    guard let start = Int(exactly: offset), let length = Int(exactly: size), start <= limit - file.startIndex,
      length <= limit - file.startIndex - start, let count = Int(exactly: entries)
    else { throw .malformed("the directory of its archive is outside of the file") }
    let begin = file.startIndex + start
    return (file[begin..<begin + length], count)
  }

  /// The end record of 64 bits.
  private static func wideEnd(
    of file: Data, at offset: UInt64
  ) throws(PickleProblem) -> (entries: UInt64, size: UInt64, offset: UInt64, limit: Int) {
    var record = ByteCursor(file)
    _ = try record.take(offset)
    let limit = record.position
    guard try record.number(4) == wideEndSignature else { throw .malformed("its archive has no directory where it says") }
    _ = try record.take(28)
    return (try record.number(8), try record.number(8), try record.number(8), limit)
  }

  /// An entry as the directory describes it.
  private struct Record {
    let name: String
    /// Where the entry's own header begins.
    private(set) var begin: UInt64
    private var storedSize: UInt64
    private var size: UInt64
    private let rawName: Data

    init(_ cursor: inout ByteCursor) throws(PickleProblem) {
      guard try cursor.number(4) == StoredArchive.directorySignature else { throw .malformed("the directory of its archive is damaged") }
      _ = try cursor.take(4)
      let flags = try cursor.number(2), method = try cursor.number(2)
      _ = try cursor.take(8)
      (storedSize, size) = (try cursor.number(4), try cursor.number(4))
      let lengths = (name: try cursor.number(2), extra: try cursor.number(2), comment: try cursor.number(2))
      _ = try cursor.take(8)
      begin = try cursor.number(4)
      rawName = try cursor.take(lengths.name)
      guard let name = String(validating: rawName, as: UTF8.self) else { throw .malformed("an entry of its archive has no proper name") }
      self.name = name
      var extra = ByteCursor(try cursor.take(lengths.extra))
      _ = try cursor.take(lengths.comment)
      try widen(&extra)
      guard flags & 1 == 0 else { throw .unsupported("the entry \(name) of its archive is encrypted") }
      guard method == 0, storedSize == size else {
        throw .unsupported(
          "the entry \(name) of its archive is compressed, which torch.save never does; unpack it and store it uncompressed")
      }
    }

    /// Takes the numbers of 64 bits for those that have no room in 32.
    private mutating func widen(_ extra: inout ByteCursor) throws(PickleProblem) {
      let saturated: UInt64 = 0xFFFF_FFFF
      while extra.rest >= 4 {
        let kind = try extra.number(2)
        var field = ByteCursor(try extra.take(extra.number(2)))
        guard kind == 1 else { continue }
        if size == saturated { size = try field.number(8) }
        if storedSize == saturated { storedSize = try field.number(8) }
        if begin == saturated { begin = try field.number(8) }
        return
      }
    }

    /// - Parameter file: the archive up to its directory.
    func contents(in file: Data) throws(PickleProblem) -> Data {
      var cursor = ByteCursor(file)
      do {
        _ = try cursor.take(begin)
        guard try cursor.number(4) == StoredArchive.localSignature else { throw PickleProblem.malformed("") }
        _ = try cursor.take(22)
        let lengths = (name: try cursor.number(2), extra: try cursor.number(2))
        guard try cursor.take(lengths.name) == rawName else { throw PickleProblem.malformed("") }
        _ = try cursor.take(lengths.extra)
        return try cursor.take(size)
      } catch {
        throw .malformed("the entry \(name) of its archive is not where the directory says, or leaves the file")
      }
    }
  }
}
