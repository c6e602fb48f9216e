/// Weights on words as stable-diffusion-webui has them: `(word)`, `(word:1.2)`, `[word]`, `\(`, and `BREAK` between chunks.
///
/// Brackets that are never closed count to the end; those that were never opened are text. Source: `parse_prompt_attention` of stable-diffusion-webui.
struct WebUIEmphasis {
  /// Brackets inside one another. The webui has no limit; what is deeper is text here, so that no prompt takes long.
  static let mostLevels = 100

  /// The parts so far, and their weights beside them: a closing bracket changes many weights and no text.
  private var texts: [String] = []
  private var weights: [Double] = []
  /// The places among the parts at which brackets were opened.
  private var round: [Int] = []
  private var square: [Int] = []
  private let scalars: [Unicode.Scalar]
  private var place = 0

  private init(_ text: String) { scalars = Array(text.unicodeScalars) }

  /// The parts of a prompt, in order, at least one. Neighbours have different weights.
  static func parse(_ text: String) -> [WeightedText] {
    var parser = WebUIEmphasis(text)
    while parser.place < parser.scalars.count { parser.next() }
    for start in parser.round { parser.multiply(from: start, by: 1.1) }
    for start in parser.square { parser.multiply(from: start, by: 1 / 1.1) }
    return parser.merged()
  }

  /// Takes one mark, or a run of text.
  private mutating func next() {
    let scalar = scalars[place]
    place += 1
    switch scalar {
    case "\\":
      guard place < scalars.count, "()[]\\".unicodeScalars.contains(scalars[place]) else { return append("") }
      append(String(scalars[place]))
      place += 1
    case "(" where round.count + square.count < Self.mostLevels: round.append(texts.count)
    case "[" where round.count + square.count < Self.mostLevels: square.append(texts.count)
    case ")":
      if let start = round.popLast() { multiply(from: start, by: 1.1) } else { append(")") }
    case "]":
      if let start = square.popLast() { multiply(from: start, by: 1 / 1.1) } else { append("]") }
    case ":":
      guard let (written, end) = weight(), !round.isEmpty, let weight = PythonNumber.float(written, hasExponents: false) else {
        return append(":")
      }
      place = end
      multiply(from: round.removeLast(), by: weight)
    default:
      let end = scalars[place...].firstIndex { "\\()[]:".unicodeScalars.contains($0) } ?? scalars.count
      append(inChunks: scalars[(place - 1)..<end])
      place = end
    }
  }

  /// What stands between a colon and a closing bracket if that may be a number, and the place behind the bracket.
  private func weight() -> (written: String, end: Int)? {
    var end = place
    func skip(_ isWanted: (Unicode.Scalar) -> Bool) { while end < scalars.count, isWanted(scalars[end]) { end += 1 } }
    skip(\.isPythonSpace)
    let start = end
    if end < scalars.count, scalars[end] == "+" || scalars[end] == "-" { end += 1 }
    let digits = end
    skip { $0 == "." || $0.properties.numericType == .decimal }
    let written = scalars[start..<end], isNumber = end > digits
    skip(\.isPythonSpace)
    guard isNumber, end < scalars.count, scalars[end] == ")" else { return nil }
    return (String(String.UnicodeScalarView(written)), end + 1)
  }

  private mutating func append(_ text: String, weight: Double = 1) {
    texts.append(text)
    weights.append(weight)
  }

  /// Cuts a run of text at the word BREAK, with the spaces around it.
  private mutating func append(inChunks run: ArraySlice<Unicode.Scalar>) {
    let word = Array("BREAK".unicodeScalars)
    var rest = run
    while let found = rest.indices.first(where: { rest[$0...].starts(with: word) && rest.isWord($0..<$0 + word.count) }) {
      let before = rest[..<found].reversed().drop(while: \.isPythonSpace).reversed()
      append(String(String.UnicodeScalarView(before)))
      append(WeightedText.chunkBreak.text, weight: WeightedText.chunkBreak.weight)
      rest = rest[(found + word.count)...].drop(while: \.isPythonSpace)
    }
    append(String(String.UnicodeScalarView(rest)))
  }

  private mutating func multiply(from start: Int, by factor: Double) {
    for index in start..<weights.count { weights[index] *= factor }
  }

  private func merged() -> [WeightedText] {
    var result: [WeightedText] = []
    for (text, weight) in zip(texts, weights) {
      if let last = result.last, last.weight == weight {
        result[result.count - 1].text += text
      } else {
        result.append(WeightedText(text, weight: weight))
      }
    }
    return result.isEmpty ? [WeightedText("")] : result
  }
}
