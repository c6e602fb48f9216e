/// A token that is cut out of the text before byte-pair encoding sees it (transformers' `AddedToken`).
struct AddedToken: Equatable, Sendable {
  var content: Spelling
  /// Whether it is normalised and matched in the normalised text, or matched in the text as written.
  var isNormalized: Bool
  /// Whether decoding may skip it.
  var isSpecial: Bool
  /// Whether it may not touch other word characters.
  var isSingleWord = false
  /// Whether it includes the white space before and after it.
  var stripsLeft = false
  var stripsRight = false
}

/// The added tokens of a tokenizer with their identifiers.
struct AddedTokens: Sendable {
  private(set) var identifiers: [Spelling: Int] = [:]
  private(set) var tokens: [Int: AddedToken] = [:]
  /// The spellings that decoding shows; for a normalised token its normalised form.
  private(set) var spellings: [Int: Spelling] = [:]
  /// The spellings that decoding may skip.
  private(set) var special: Set<Spelling> = []
  private(set) var literal, normalized: AddedTokenMatcher
  /// Identifiers that follow a token's own wherever it stands: a word of several vectors.
  private(set) var followers: [Int: [Int]] = [:]
  private let ignored: Set<Spelling>

  /// - Parameter additions: in the order in which they are added; a later token of the same content replaces an earlier one.
  init(_ additions: [AddedToken], vocabulary: [Spelling: UInt32], ignoringSpecial: Bool) {
    var nextIdentifier = vocabulary.count
    for token in additions where !token.content.isEmpty {
      let identifier: Int
      if let known = identifiers[token.content] ?? vocabulary[token.content].map(Int.init) {
        identifier = known
      } else {
        identifier = nextIdentifier
        nextIdentifier += 1
      }
      identifiers[token.content] = identifier
      tokens[identifier] = token
      // A token that replaces a normalised one keeps the earlier spelling.
      if token.isNormalized || spellings[identifier] == nil {
        spellings[identifier] = Spelling(String(String.UnicodeScalarView(token.pattern)).utf8)
      }
      if token.isSpecial { special.insert(token.content) }
    }
    ignored = ignoringSpecial ? special : []
    literal = AddedTokenMatcher([])
    normalized = AddedTokenMatcher([])
    literal = matcher(normalized: false)
    normalized = matcher(normalized: true)
  }

  private func matcher(normalized: Bool) -> AddedTokenMatcher {
    AddedTokenMatcher(
      tokens.sorted { $0.key < $1.key }.filter { $0.value.isNormalized == normalized }
        .map { AddedTokenMatcher.Pattern(identifier: $0.key, token: $0.value, isIgnored: ignored.contains($0.value.content)) })
  }

  /// A word's own name, and that name with _1, _2, … for further vectors.
  static func names(of word: String, vectors: Int) -> [String] { (0..<vectors).map { $0 == 0 ? word : "\(word)_\($0)" } }

  /// Adds the tokens of a word. Those of further vectors follow it.
  mutating func add(word: String, identifiers added: Range<Int>) {
    for (name, identifier) in zip(Self.names(of: word, vectors: added.count), added) {
      let token = AddedToken(content: Spelling(name.utf8), isNormalized: true, isSpecial: false)
      identifiers[token.content] = identifier
      tokens[identifier] = token
      spellings[identifier] = Spelling(String(String.UnicodeScalarView(token.pattern)).utf8)
    }
    if let first = added.first { followers[first] = Array(added.dropFirst()) }
    normalized = matcher(normalized: true)
  }
}

/// Finds added tokens: the leftmost, and of several at one place the longest.
struct AddedTokenMatcher: Sendable {
  struct Pattern: Sendable {
    let identifier: Int
    let token: AddedToken
    /// Whether a match is treated as plain text (`split_special_tokens`).
    let isIgnored: Bool
    let scalars: [Unicode.Scalar]

    init(identifier: Int, token: AddedToken, isIgnored: Bool) {
      self.identifier = identifier
      self.token = token
      self.isIgnored = isIgnored
      scalars = token.pattern
    }
  }

  enum Piece {
    case text(Range<Int>)
    case token(Int)
  }

  /// By first scalar, the longest first.
  private let patterns: [Unicode.Scalar: [Pattern]]

  init(_ patterns: [Pattern]) {
    self.patterns = Dictionary(grouping: patterns.filter { !$0.scalars.isEmpty }, by: { $0.scalars[0] })
      .mapValues { $0.sorted { ($1.scalars.count, $0.identifier) < ($0.scalars.count, $1.identifier) } }
  }

  /// The pieces that `scalars` consists of, in order.
  func split(_ scalars: [Unicode.Scalar]) -> [Piece] {
    var pieces: [Piece] = []
    var textStart = 0
    var position = 0
    while position < scalars.count {
      guard let pattern = patterns[scalars[position]]?.first(where: { scalars[position...].starts(with: $0.scalars) }) else {
        position += 1
        continue
      }
      var (start, end) = (position, position + pattern.scalars.count)
      position = end
      if pattern.isIgnored || pattern.token.isSingleWord && touchesWord(start..<end, in: scalars) { continue }
      if pattern.token.stripsLeft {
        while start > textStart, scalars[start - 1].properties.isWhitespace { start -= 1 }
        start = max(start, textStart)
      }
      if pattern.token.stripsRight {
        end = max(end, textStart)  // up to here the token before has taken white space
        while end < scalars.count, scalars[end].properties.isWhitespace { end += 1 }
      }
      if textStart < start { pieces.append(.text(textStart..<start)) }
      // The token is empty if it consists of white space that the token before has taken.
      if start < end { pieces.append(.token(pattern.identifier)) }
      textStart = end
    }
    if textStart < scalars.count { pieces.append(.text(textStart..<scalars.count)) }
    return pieces
  }

  private func touchesWord(_ range: Range<Int>, in scalars: [Unicode.Scalar]) -> Bool {
    range.lowerBound > 0 && scalars[range.lowerBound - 1].isWordScalar
      || range.upperBound < scalars.count && scalars[range.upperBound].isWordScalar
  }
}

extension AddedToken {
  /// The scalars to find in the text.
  fileprivate var pattern: [Unicode.Scalar] {
    let scalars = Array(content.text.unicodeScalars)
    return isNormalized ? PromptNormalizer.normalize(scalars) : scalars
  }
}
