/// Comma-separated values. Source: RFC 4180; lines may end in a line feed alone, too.
package enum CSV {
  /// A record with the number of the line that it begins in, from 1 on.
  package struct Record: Equatable {
    package let line: Int
    /// Nil where the record is damaged; it reaches to the end of its line then, and an open quotation to the end of the text.
    package let fields: [String]?
  }

  /// All records but blank lines.
  package static func records(_ bytes: [UInt8]) -> [Record] {
    var scanner = Scanner(bytes: bytes)
    var records: [Record] = []
    while let record = scanner.next() { records.append(record) }
    return records
  }

  /// A record as a line, with its end.
  package static func line(_ fields: [String]) -> String {
    let quoted = fields.map { field in
      // By bytes, since a carriage return and a line feed are one character.
      field.utf8.contains { Array(",\"\r\n".utf8).contains($0) } ? "\"" + field.replacing("\"", with: "\"\"") + "\"" : field
    }
    return quoted.joined(separator: ",") + "\n"
  }

  private struct Scanner {
    let bytes: [UInt8]
    private var position = 0
    private var line = 1
    private static let (comma, quote) = (UInt8(ascii: ","), UInt8(ascii: "\""))
    private static let (feed, carriageReturn) = (UInt8(ascii: "\n"), UInt8(ascii: "\r"))

    init(bytes: [UInt8]) { self.bytes = bytes }

    private var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func next() -> Record? {
      while skipEndOfLine() {}
      guard byte != nil else { return nil }
      let first = line
      var fields: [String]? = []
      repeat {
        guard let field = field() else {
          fields = nil
          break
        }
        fields?.append(field)
      } while skip(Self.comma)
      if !skipEndOfLine(), byte != nil {
        // Something follows the end of a quotation.
        fields = nil
        while let byte, byte != Self.feed { position += 1 }
        _ = skipEndOfLine()
      }
      return Record(line: first, fields: fields)
    }

    private mutating func skip(_ wanted: UInt8) -> Bool {
      guard byte == wanted else { return false }
      position += 1
      return true
    }

    /// True where a line ended here.
    private mutating func skipEndOfLine() -> Bool {
      if byte == Self.carriageReturn, position + 1 < bytes.count, bytes[position + 1] == Self.feed { position += 1 }
      guard skip(Self.feed) else { return false }
      line += 1
      return true
    }

    /// Nil where a quotation does not end, or the text is no UTF-8.
    private mutating func field() -> String? {
      guard byte == Self.quote else {
        let start = position
        while let byte, byte != Self.comma, byte != Self.feed { position += 1 }
        var text = bytes[start..<position]
        if byte != Self.comma, text.last == Self.carriageReturn { text.removeLast() }
        return String(validating: text, as: UTF8.self)
      }
      position += 1
      var text: [UInt8] = []
      while let byte {
        position += 1
        if byte == Self.quote, !skip(Self.quote) { return String(validating: text, as: UTF8.self) }
        if byte == Self.feed { line += 1 }
        text.append(byte)
      }
      return nil
    }
  }
}
