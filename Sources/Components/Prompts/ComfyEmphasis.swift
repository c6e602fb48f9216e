/// Weights on words as ComfyUI has them: `(word)` and `(word:1.2)`, where a number takes the place of the weight outside instead of multiplying it.
///
/// Source: `token_weights` of ComfyUI.
struct ComfyEmphasis {
  /// Brackets inside one another. ComfyUI has no limit; what is deeper is text here, so that no prompt takes long.
  static let mostLevels = 100

  /// The parts of a prompt, in order; none of an empty one.
  static func parse(_ text: String) -> [WeightedText] {
    let escaped = text.replacing("\\)", with: "\0\u{1}").replacing("\\(", with: "\0\u{2}")
    return weighted(Array(escaped.unicodeScalars)[...], 1, level: 0).map {
      WeightedText($0.text.replacing("\0\u{1}", with: ")").replacing("\0\u{2}", with: "("), weight: $0.weight)
    }
  }

  private static func weighted(_ text: ArraySlice<Unicode.Scalar>, _ weight: Double, level: Int) -> [WeightedText] {
    guard level < mostLevels else { return [WeightedText(String(String.UnicodeScalarView(text)), weight: weight)] }
    return groups(text).flatMap { group in
      guard group.count >= 2, group.first == "(", group.last == ")" else {
        return [WeightedText(String(String.UnicodeScalarView(group)), weight: weight)]
      }
      let inside = group.dropFirst().dropLast()
      if let colon = inside.lastIndex(of: ":"), colon > inside.startIndex,
        let own = PythonNumber.float(PythonNumber.trimmed(String(String.UnicodeScalarView(inside[(colon + 1)...]))), hasExponents: true)
      {
        return weighted(inside[..<colon], own, level: level + 1)
      }
      return weighted(inside, weight * 1.1, level: level + 1)
    }
  }

  /// Cuts a text where brackets on its outermost level begin and end. A bracket that closes nothing makes all that follow count one level less.
  private static func groups(_ text: ArraySlice<Unicode.Scalar>) -> [ArraySlice<Unicode.Scalar>] {
    var (groups, start, level) = ([ArraySlice<Unicode.Scalar>](), text.startIndex, 0)
    func cut(_ end: Int) {
      if end > start { groups.append(text[start..<end]) }
      start = end
    }
    for place in text.indices {
      if text[place] == "(" {
        if level == 0 { cut(place) }
        level += 1
      } else if text[place] == ")" {
        level -= 1
        if level == 0 { cut(place + 1) }
      }
    }
    cut(text.endIndex)
    return groups
  }
}
