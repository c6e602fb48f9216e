/// Numbers and spaces as Python reads them: the grammars of prompts are those of programs written in it.
enum PythonNumber {
  /// What `float` makes of a text; nil where it is no number, and where it is none to count with.
  ///
  /// - Parameter hasExponents: whether a text may have an exponent, and digits in groups (`1_000`).
  static func float(_ text: String, hasExponents: Bool) -> Double? {
    guard let value = any(text, hasExponents: hasExponents), value.isFinite else { return nil }
    return value
  }

  /// The same, also where it is infinite.
  static func any(_ text: String, hasExponents: Bool) -> Double? {
    let scalars = Array(text.unicodeScalars)
    var place = 0, plain = ""
    func take(_ isWanted: (Unicode.Scalar) -> Bool) -> Unicode.Scalar? {
      guard place < scalars.count, isWanted(scalars[place]) else { return nil }
      defer { place += 1 }
      return scalars[place]
    }
    /// Digits of any script.
    func digits() -> Bool {
      var found = false
      while let digit = take({ $0.properties.numericType == .decimal }) {
        plain += "\(Int(digit.properties.numericValue ?? 0))"
        found = true
        // An underscore stands between digits.
        guard hasExponents, place + 1 < scalars.count, scalars[place] == "_", scalars[place + 1].properties.numericType == .decimal else {
          continue
        }
        place += 1
      }
      return found
    }
    if let sign = take({ $0 == "+" || $0 == "-" }) { plain.unicodeScalars.append(sign) }
    let whole = digits()
    if !whole { plain += "0" }
    if take({ $0 == "." }) != nil {
      plain += "."
      let part = digits()
      guard whole || part else { return nil }
      if !part { plain += "0" }
    } else if !whole {
      return nil
    }
    if hasExponents, take({ $0 == "e" || $0 == "E" }) != nil {
      plain += "e"
      if let sign = take({ $0 == "+" || $0 == "-" }) { plain.unicodeScalars.append(sign) }
      guard digits() else { return nil }
    }
    return place == scalars.count ? Double(plain) : nil
  }

  /// A text without the spaces at its ends.
  static func trimmed(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.drop(while: \.isPythonSpace).reversed().drop(while: \.isPythonSpace).reversed()))
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
