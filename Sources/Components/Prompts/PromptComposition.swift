/// Prompts that are predicted each by itself and added up with weights: `a cat :1.2 AND a dog`.
///
/// Source: `get_multicond_prompt_list` of stable-diffusion-webui.
enum PromptComposition {
  /// - Returns: the texts between the words `AND`, in order, without the spaces at their ends.
  static func parse(_ text: String) -> [WeightedText] {
    let scalars = Array(text.unicodeScalars)[...], word = Array("AND".unicodeScalars)
    var parts: [WeightedText] = [], start = 0, place = 0
    while place < scalars.count {
      if scalars[place...].starts(with: word), scalars.isWord(place..<place + word.count) {
        parts.append(weighted(scalars[start..<place]))
        place += word.count
        start = place
      } else {
        place += 1
      }
    }
    return parts + [weighted(scalars[start...])]
  }

  /// A number after the last colon is the weight.
  private static func weighted(_ part: ArraySlice<Unicode.Scalar>) -> WeightedText {
    func text(_ scalars: ArraySlice<Unicode.Scalar>) -> String {
      var end = scalars.endIndex
      while end > scalars.startIndex, scalars[end - 1].isPythonSpace { end -= 1 }
      return String(String.UnicodeScalarView(scalars[..<end]))
    }
    guard let colon = part.lastIndex(of: ":") else { return WeightedText(text(part)) }
    let written = text(part[(colon + 1)...].drop(while: \.isPythonSpace))
    guard let weight = PythonNumber.float(written, hasExponents: false) else { return WeightedText(text(part)) }
    return WeightedText(text(part[..<colon]), weight: weight)
  }
}
