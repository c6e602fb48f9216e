/// Reads JSON a value at a time.
///
/// A general JSON reader does not report duplicate names, loses the order of names, rounds large numbers, and builds a tree of anything in a hostile file.
struct JSONScanner {
  /// What is wrong with a text, as the end of a sentence.
  struct Problem: Error { let reason: String }

  private let bytes: [UInt8]
  private var position = 0
  /// The reference's limit. Deeper nesting has no meaning in a header and would take stack space.
  private static let deepest = 126

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// Writers may pad a header at its beginning, to align what follows.
  var beginsObject: Bool { bytes.first { !Self.isSpace($0) } == UInt8(ascii: "{") }

  var isAtEnd: Bool { bytes[position...].allSatisfy(Self.isSpace) }

  private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }

  private var problem: Problem { Problem(reason: "it is no valid JSON at byte \(position)") }

  private mutating func next() throws(Problem) -> UInt8 {
    guard position < bytes.count else { throw Problem(reason: "its JSON ends too early") }
    defer { position += 1 }
    return bytes[position]
  }

  /// The next byte that is not white space. It is not consumed.
  private mutating func peek() -> UInt8? {
    while position < bytes.count, Self.isSpace(bytes[position]) { position += 1 }
    return position < bytes.count ? bytes[position] : nil
  }

  private mutating func expect(_ character: Unicode.Scalar) throws(Problem) {
    guard peek() == UInt8(ascii: character) else { throw position < bytes.count ? problem : Problem(reason: "its JSON ends too early") }
    position += 1
  }

  /// The elements between two brackets, separated by commas.
  private mutating func list(
    _ open: Unicode.Scalar, _ close: Unicode.Scalar, _ element: (inout JSONScanner) throws(Problem) -> Void
  ) throws(Problem) {
    try expect(open)
    if peek() == UInt8(ascii: close) {
      position += 1
      return
    }
    while true {
      try element(&self)
      if peek() == UInt8(ascii: close) { break }
      try expect(",")
    }
    position += 1
  }

  mutating func object(_ member: (inout JSONScanner, String) throws(Problem) -> Void) throws(Problem) {
    try list("{", "}") { scanner throws(Problem) in
      let key = try scanner.string()
      try scanner.expect(":")
      try member(&scanner, key)
    }
  }

  mutating func numbers() throws(Problem) -> [Int] {
    var numbers: [Int] = []
    try list("[", "]") { scanner throws(Problem) in numbers.append(try scanner.number()) }
    return numbers
  }

  /// A whole number from 0 up: nothing else counts elements or bytes.
  private mutating func number() throws(Problem) -> Int {
    _ = peek()
    let start = position
    while position < bytes.count, (0x30...0x39).contains(bytes[position]) { position += 1 }
    let digits = bytes[start..<position]
    let isFollowed = position < bytes.count && [0x2E, 0x45, 0x65].contains(bytes[position])
    guard !isFollowed, let value = Int(String(decoding: digits, as: UTF8.self)), digits.count == 1 || digits.first != 0x30 else {
      throw Problem(reason: "an extent or offset at byte \(start) is no whole number from 0 to \(Int.max)")
    }
    return value
  }

  mutating func string() throws(Problem) -> String {
    try expect("\"")
    var text: [UInt8] = []
    while true {
      let byte = try next()
      switch byte {
      case UInt8(ascii: "\""):
        guard let string = String(validating: text, as: UTF8.self) else { throw Problem(reason: "it has a string that is no UTF-8") }
        return string
      case UInt8(ascii: "\\"): text += Array(String(try escape()).utf8)
      case 0..<0x20: throw problem
      default: text.append(byte)
      }
    }
  }

  private mutating func escape() throws(Problem) -> Unicode.Scalar {
    switch try next() {
    case UInt8(ascii: "\""): return "\""
    case UInt8(ascii: "\\"): return "\\"
    case UInt8(ascii: "/"): return "/"
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"):
      let first = try hexadecimal()
      if let scalar = Unicode.Scalar(first) { return scalar }
      guard (0xD800..<0xDC00).contains(first), try next() == UInt8(ascii: "\\"), try next() == UInt8(ascii: "u") else { throw problem }
      let second = try hexadecimal()
      guard (0xDC00..<0xE000).contains(second),
        let scalar = Unicode.Scalar(0x10000 + (UInt32(first) - 0xD800) << 10 + UInt32(second) - 0xDC00)
      else { throw problem }
      return scalar
    default: throw problem
    }
  }

  private mutating func hexadecimal() throws(Problem) -> UInt16 {
    var value: UInt16 = 0
    for _ in 0..<4 {
      guard let digit = Character(Unicode.Scalar(try next())).hexDigitValue else { throw problem }
      value = value << 4 | UInt16(digit)
    }
    return value
  }

  /// Skips a value that a later version of the format may have added.
  mutating func skipValue(depth: Int = 0) throws(Problem) {
    guard depth < Self.deepest else { throw Problem(reason: "it is nested too deeply") }
    switch peek() {
    case UInt8(ascii: "{"): try object { scanner, _ throws(Problem) in try scanner.skipValue(depth: depth + 1) }
    case UInt8(ascii: "["): try list("[", "]") { scanner throws(Problem) in try scanner.skipValue(depth: depth + 1) }
    case UInt8(ascii: "\""): _ = try string()
    default:
      let start = position
      while position < bytes.count, ![0x2C, 0x5D, 0x7D].contains(bytes[position]), !Self.isSpace(bytes[position]) { position += 1 }
      let word = String(decoding: bytes[start..<position], as: UTF8.self)
      guard ["true", "false", "null"].contains(word) || Self.isNumber(word) else { throw problem }
    }
  }

  /// Whether this is a JSON number that a double can hold.
  private static func isNumber(_ word: String) -> Bool {
    guard word.wholeMatch(of: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/) != nil, let value = Double(word) else { return false }
    return value.isFinite
  }

  /// Skips `null` if it comes next.
  mutating func skipsNull() throws(Problem) -> Bool {
    guard peek() == UInt8(ascii: "n") else { return false }
    try skipValue()
    return true
  }
}
