/// Cuts normalised text into the words that are encoded one by one.
///
/// The words are those of the regular expression
/// `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+` (CLIP, `simple_tokenizer.py`).
/// transformers then splits the two bracketed names at their letters.
struct WordScanner {
  private let scalars: ArraySlice<Unicode.Scalar>
  private var position: Int
  /// Words that are found already: the parts of a bracketed name.
  private var pending: [Range<Int>] = []

  private static let bracketedNames = ["startoftext", "endoftext"].map { Array("<|\($0)|>".unicodeScalars) }
  private static let contractions = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map { Array($0.unicodeScalars) }

  init(_ scalars: ArraySlice<Unicode.Scalar>) {
    self.scalars = scalars
    position = scalars.startIndex
  }

  /// The range of the next word.
  mutating func next() -> Range<Int>? {
    if let range = pending.popLast() { return range }
    while position < scalars.endIndex {
      let start = position
      switch scalars[start].scalarClass {
      case .space:
        position += 1
        continue
      case .letter:
        skip(.letter)
      case .number:
        position += 1
      case .other:
        if scalars[start] == "<", let name = Self.bracketedNames.first(where: { isAt(start, $0) }) {
          position += name.count
          pending = [position - 2..<position, start + 2..<position - 2]
          return start..<start + 2
        }
        if scalars[start] == "'", let contraction = Self.contractions.first(where: { isAt(start, $0) }) {
          position += contraction.count
        } else {
          skip(.other)
        }
      }
      return start..<position
    }
    return nil
  }

  private mutating func skip(_ scalarClass: ScalarClass) {
    repeat { position += 1 } while position < scalars.endIndex && scalars[position].scalarClass == scalarClass
  }

  private func isAt(_ start: Int, _ text: [Unicode.Scalar]) -> Bool {
    scalars[start...].starts(with: text)
  }
}
