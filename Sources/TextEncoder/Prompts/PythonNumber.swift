/// Numbers and spaces as Python reads them: the grammars of prompts are those of programs written in it.
enum PythonNumber {
  /// What `float` makes of a text of digits, a point and a sign; nil where it is no such number.
  static func float(_ text: String) -> Double? {
    let digits = text.unicodeScalars.map { scalar in
      scalar.properties.numericType == .decimal ? Character("\(Int(scalar.properties.numericValue ?? 0))") : Character(scalar)
    }
    // `Double` takes no point without a digit after it.
    var plain = String(digits)
    if plain.hasSuffix(".") { plain += "0" }
    return plain.contains { $0.isNumber } ? Double(plain) : nil
  }

  /// What `float` makes of any text; nil where it is no number, and where it is none to count with.
  static func anyFloat(_ text: String) -> Double? {
    let trimmed = text.unicodeScalars.drop(while: \.isPythonSpace).reversed().drop(while: \.isPythonSpace).reversed()
    let written = String(String.UnicodeScalarView(trimmed))
    guard written.wholeMatch(of: /[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)([eE][+-]?\d+(_\d+)*)?/) != nil else { return nil }
    return float(written.replacing("_", with: "")).flatMap { $0.isFinite ? $0 : nil }
  }
}

extension Unicode.Scalar {
  /// Whether Python's `\s` has it.
  var isPythonSpace: Bool { properties.isWhitespace || ("\u{1C}"..."\u{1F}").contains(self) }

  /// Whether Python's `\w` has it.
  var isPythonWord: Bool {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .decimalNumber, .letterNumber, .otherNumber:
      true
    default: self == "_"
    }
  }
}

extension ArraySlice<Unicode.Scalar> {
  /// Whether a part of this is a word by itself, as Python's `\b` sees words.
  func isWord(_ range: Range<Int>) -> Bool {
    (range.lowerBound == startIndex || !self[range.lowerBound - 1].isPythonWord)
      && (range.upperBound == endIndex || !self[range.upperBound].isPythonWord)
  }
}
