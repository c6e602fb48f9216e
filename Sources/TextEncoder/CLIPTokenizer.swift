/// CLIP's tokenizer: text to the identifiers that its text model embeds, equal to transformers 5's `CLIPTokenizer`.
///
/// The text is cut at its added tokens (a prompt may contain `<|endoftext|>` and the like), normalised (composed, white space
/// collapsed, lower case), and cut into words. Then byte-pair encoding merges each word's bytes.
public struct CLIPTokenizer: Sendable {
  /// The length of `encodePadded`, in tokens (`model_max_length`; 77 if the files have none).
  public let maximumLength: Int
  /// The tokens for begin, end and padding.
  public let bosTokenID, eosTokenID, padTokenID: Int

  private let encoding: BytePairEncoding
  private let spellings: [Int: Spelling]
  private var added: AddedTokens
  private let truncationSide, paddingSide: TokenizerConfiguration.Side

  init(vocabulary: [Spelling: UInt32], merges: [MergeRule], configuration: TokenizerConfiguration) throws(TokenizerError) {
    encoding = try BytePairEncoding(vocabulary: vocabulary, merges: merges, unknown: configuration.unknown)
    spellings = Dictionary(vocabulary.map { (Int($0.value), $0.key) }, uniquingKeysWith: { $0.lexicographicallyPrecedes($1) ? $0 : $1 })
    let added = AddedTokens(configuration.addedTokens, vocabulary: vocabulary, ignoringSpecial: configuration.splitsSpecialTokens)
    guard let bos = added.identifiers[configuration.bos], let eos = added.identifiers[configuration.eos],
      let padding = added.identifiers[configuration.padding]
    else {
      throw .invalidConfiguration(file: "tokenizer_config.json", reason: "its begin, end or padding token is empty")
    }
    self.added = added
    (bosTokenID, eosTokenID, padTokenID) = (bos, eos, padding)
    maximumLength = configuration.maximumLength
    truncationSide = configuration.truncationSide
    paddingSide = configuration.paddingSide
  }

  /// The same tokenizer with a further word, as transformers' `add_tokens` adds it and diffusers spells one of several vectors: `word word_1 word_2`.
  ///
  /// - Parameters:
  ///   - word: found wherever the text has it, whatever its case.
  ///   - identifiers: one for each vector.
  /// - Throws: `TokenizerError.knownToken` if the tokenizer has such a token already.
  public func adding(_ word: String, identifiers: Range<Int>) throws(TokenizerError) -> CLIPTokenizer {
    let names = Set(AddedTokens.names(of: word, vectors: identifiers.count).map { Spelling($0.utf8) })
    let known = spellings.merging(added.tokens.mapValues(\.content)) { $1 }
    if let token = known.first(where: { names.contains($0.value) || identifiers.contains($0.key) }) {
      throw .knownToken(word: word, token: token.value.text)
    }
    var result = self
    result.added.add(word: word, identifiers: identifiers)
    return result
  }

  /// Whether what is too long loses its end.
  var truncatesRight: Bool { truncationSide == .right }

  /// Whether a word ends with a token.
  func endsWord(_ identifier: Int) -> Bool {
    added.tokens[identifier] != nil
      || spellings[identifier].map { $0.suffix(ByteAlphabet.endOfWord.count).elementsEqual(ByteAlphabet.endOfWord) } ?? true
  }

  /// The tokens of a text alone: the vectors of a learned word in one group, and each other token in one of its own.
  func groups(of text: String) -> [(tokens: [Int], isLearned: Bool)] {
    let content = content(of: text, limit: .max)
    var (groups, place) = ([(tokens: [Int], isLearned: Bool)](), 0)
    while place < content.count {
      let followers = added.followers[content[place]], end = min(place + 1 + (followers?.count ?? 0), content.count)
      groups.append((Array(content[place..<end]), followers != nil))
      place = end
    }
    return groups
  }

  /// The whole text between the begin and the end token; as `tokenizer(text).input_ids`.
  public func encode(_ text: String) -> [Int] {
    [bosTokenID] + content(of: text, limit: .max) + [eosTokenID]
  }

  /// The part of a text that `encodePadded` leaves out; nil if it keeps all.
  ///
  /// - Returns: the text of the tokens that are left out, the tokens of the whole text, and how many of them are kept; begin and end not counted.
  public func truncation(of text: String) -> (dropped: String, tokens: Int, limit: Int)? {
    let room = maximumLength - 2
    // A token has at least one byte.
    guard text.utf8.count > room else { return nil }
    let content = content(of: text, limit: .max)
    guard content.count > room else { return nil }
    let dropped = truncationSide == .right ? content.dropFirst(room) : content.dropLast(room)
    return (decode(Array(dropped)), content.count, room)
  }

  /// Exactly `maximumLength` identifiers: truncated between the begin and the end token, or padded; as
  /// `tokenizer(text, padding="max_length", truncation=True).input_ids`.
  public func encodePadded(_ text: String) -> [Int] {
    let room = maximumLength - 2
    // If the right is truncated, tokens beyond the room are not needed.
    let content = content(of: text, limit: truncationSide == .right ? room : .max)
    let kept = truncationSide == .right ? content.prefix(room) : content.suffix(room)
    let tokens = [bosTokenID] + kept + [eosTokenID]
    let padding = [Int](repeating: padTokenID, count: maximumLength - tokens.count)
    return paddingSide == .right ? tokens + padding : padding + tokens
  }

  /// The spellings of the text's tokens, without begin and end: bytes as printable characters, `</w>` where a word ends.
  public func tokens(_ text: String) -> [String] {
    content(of: text, limit: .max).map { (added.tokens[$0]?.content ?? spellings[$0] ?? []).text }
  }

  /// The text that identifiers stand for, as `tokenizer.decode`: without unknown identifiers, and without spaces at its ends.
  ///
  /// - Parameter skipSpecialTokens: leaves out begin, end, padding and other special tokens.
  public func decode(_ identifiers: [Int], skipSpecialTokens: Bool = false) -> String {
    var bytes: [UInt8] = []
    for identifier in identifiers {
      guard let spelling = added.spellings[identifier] ?? spellings[identifier] else { continue }
      if skipSpecialTokens, added.special.contains(spelling) { continue }
      bytes.append(contentsOf: ByteAlphabet.bytes(of: spelling))
    }
    var scalars = String.UnicodeScalarView()
    var rest = bytes[...]
    while !rest.isEmpty {
      if rest.starts(with: ByteAlphabet.endOfWord) {
        rest = rest.dropFirst(ByteAlphabet.endOfWord.count)
        scalars.append(" ")
      } else {
        let end = rest.dropFirst().firstIndex(of: ByteAlphabet.endOfWord[0]) ?? rest.endIndex
        scalars.append(contentsOf: String(decoding: rest[rest.startIndex..<end], as: UTF8.self).unicodeScalars)
        rest = rest[end...]
      }
    }
    // Python's `strip`.
    func isSpace(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.isWhitespace || (0x1C...0x1F).contains(scalar.value) }
    guard let first = scalars.firstIndex(where: { !isSpace($0) }), let last = scalars.lastIndex(where: { !isSpace($0) }) else {
      return ""
    }
    return String(scalars[first...last])
  }

  /// The identifiers of the text alone: all, or at least the first `limit`.
  private func content(of text: String, limit: Int) -> [Int] {
    var result: [Int] = []
    let scalars = Array(text.unicodeScalars)
    for piece in added.literal.split(scalars) {
      switch piece {
      case .token(let identifier): result += [identifier] + (added.followers[identifier] ?? [])
      case .text(let range): append(scalars[range], limit: limit, to: &result)
      }
      if result.count >= limit { break }
    }
    return result
  }

  private func append(_ text: ArraySlice<Unicode.Scalar>, limit: Int, to result: inout [Int]) {
    let scalars = PromptNormalizer.normalize(text)
    var word: [UInt8] = []
    for piece in added.normalized.split(scalars) {
      switch piece {
      case .token(let identifier):
        result += [identifier] + (added.followers[identifier] ?? [])
      case .text(let range):
        var scanner = WordScanner(scalars[range])
        while result.count < limit, let range = scanner.next() {
          word.removeAll(keepingCapacity: true)
          for scalar in scalars[range] { word.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter) }
          encoding.encode(word, into: &result)
        }
      }
    }
  }
}
