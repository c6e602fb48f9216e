import Foundation

/// BERT's tokenizer: text to the identifiers that `LDMBertModel` embeds, equal to transformers 5's `BertTokenizer`.
///
/// The text is cut at its special tokens, normalised and cut into words, and each word into the longest pieces that the vocabulary has (WordPiece;
/// Schuster and Nakajima 2012).
public struct BertTokenizer: Sendable {
  /// The tokens for begin (`cls_token`), end (`sep_token`), padding and words without pieces.
  public let clsTokenID, sepTokenID, padTokenID, unkTokenID: Int
  private let vocabulary: [Spelling: UInt32]
  private let spellings: [Int: Spelling]
  private let added: AddedTokens
  private let normalizer: BertNormalizer
  /// Bytes of the longest piece.
  private let longest: Int

  /// - Parameters:
  ///   - vocabulary: `vocab.txt`, a token in each line.
  ///   - configuration: `tokenizer_config.json`.
  /// - Throws: `TokenizerError`.
  public init(vocabulary: Data, configuration: Data? = nil) throws(TokenizerError) {
    guard let text = String(validating: vocabulary, as: UTF8.self) else { throw .invalidPieces(reason: "vocab.txt is not UTF-8 text") }
    var lines = text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    if lines.last?.isEmpty == true { lines.removeLast() }
    let tokens = lines.enumerated().map { (Spelling($1.last == UInt8(ascii: "\r") ? $1.dropLast() : $1), UInt32(truncatingIfNeeded: $0)) }
    try self.init(Dictionary(tokens) { $1 }, configuration: configuration, serialized: [])
  }

  /// - Parameters:
  ///   - tokenizer: `tokenizer.json`, of which the vocabulary and the added tokens are taken.
  ///   - configuration: `tokenizer_config.json`.
  /// - Throws: `TokenizerError`.
  public init(tokenizer: Data, configuration: Data? = nil) throws(TokenizerError) {
    let file = try decodeJSON(SerializedTokenizer.self, tokenizer, file: "tokenizer.json")
    guard file.model.type == nil || file.model.type == "WordPiece" else {
      throw .invalidConfiguration(file: "tokenizer.json", reason: "its model is \(file.model.type ?? ""), but BERT's is WordPiece")
    }
    var vocabulary: [Spelling: UInt32] = [:]
    for (token, identifier) in file.model.vocab {
      guard let value = UInt32(exactly: identifier) else {
        throw .invalidPieces(reason: "the token \"\(token)\" has the number \(identifier)")
      }
      vocabulary[Spelling(token.utf8)] = value
    }
    try self.init(vocabulary, configuration: configuration, serialized: file.added_tokens?.map(\.token) ?? [])
  }

  /// From a folder in transformers' layout: `vocab.txt` or else `tokenizer.json`, and `tokenizer_config.json` if there is one.
  /// - Throws: `TokenizerError` if a file is missing, unreadable or wrong.
  public init(folder: URL) throws(TokenizerError) {
    func optional(_ name: String) throws(TokenizerError) -> Data? {
      let url = folder.appending(path: name)
      guard FileManager.default.fileExists(atPath: url.path) else { return nil }
      do { return try Data(contentsOf: url) } catch { throw .unreadableFile(path: url.path, reason: error.localizedDescription) }
    }
    let configuration = try optional("tokenizer_config.json")
    if let vocabulary = try optional("vocab.txt") {
      try self.init(vocabulary: vocabulary, configuration: configuration)
    } else if let tokenizer = try optional("tokenizer.json") {
      try self.init(tokenizer: tokenizer, configuration: configuration)
    } else {
      throw .missingPieces(path: folder.appending(path: "vocab.txt").path)
    }
  }

  private init(_ vocabulary: [Spelling: UInt32], configuration: Data?, serialized: [WrittenToken]) throws(TokenizerError) {
    let file = try configuration.map { json throws(TokenizerError) in
      try decodeJSON(BertTokenizerKeys.self, json, file: "tokenizer_config.json")
    }
    for (side, key) in [(file?.truncation_side, "truncation_side"), (file?.padding_side, "padding_side")] where (side ?? "right") != "right"
    {
      throw .invalidConfiguration(file: "tokenizer_config.json", reason: "its \(key) is not right")
    }
    let listed = (file?.added_tokens_decoder ?? [:]).sorted { $0.key < $1.key }.map(\.value) + serialized
    let named = [
      file?.cls_token ?? WrittenToken("[CLS]"), file?.sep_token ?? WrittenToken("[SEP]"), file?.pad_token ?? WrittenToken("[PAD]"),
      file?.unk_token ?? WrittenToken("[UNK]"), file?.mask_token ?? WrittenToken("[MASK]"),
    ]
    let known = Set(listed.map(\.content))
    added = AddedTokens(
      listed.map { $0.resolved(isSpecial: named.map(\.content).contains($0.content)) }
        + named.filter { !known.contains($0.content) }.map { $0.resolved(isSpecial: true) },
      vocabulary: vocabulary, ignoringSpecial: false)
    let identifiers = named.map { [added] in added.identifiers[$0.content] }
    guard let cls = identifiers[0], let sep = identifiers[1], let pad = identifiers[2], let unknown = identifiers[3] else {
      throw .invalidPieces(reason: "its begin, end, padding or unknown token is empty")
    }
    (clsTokenID, sepTokenID, padTokenID, unkTokenID) = (cls, sep, pad, unknown)
    self.vocabulary = vocabulary
    spellings = Dictionary(vocabulary.map { (Int($0.value), $0.key) }) { $0.lexicographicallyPrecedes($1) ? $0 : $1 }
    longest = vocabulary.keys.reduce(1) { max($0, $1.count) }
    let lowercases = file?.do_lower_case ?? true
    normalizer = BertNormalizer(
      lowercases: lowercases, stripsAccents: file?.strip_accents ?? lowercases, isolatesIdeographs: file?.tokenize_chinese_chars ?? true)
  }

  /// The whole text between begin and end, as `tokenizer(text).input_ids`.
  public func encode(_ text: String) -> [Int] { [clsTokenID] + content(of: text, limit: .max) + [sepTokenID] }

  /// Exactly `length` identifiers, as `tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids`.
  /// - Precondition: `length` is at least 2.
  public func encodePadded(_ text: String, length: Int) -> [Int] {
    let tokens = [clsTokenID] + content(of: text, limit: length - 2).prefix(length - 2) + [sepTokenID]
    return tokens + Array(repeating: padTokenID, count: length - tokens.count)
  }

  /// The part of a text that `encodePadded` leaves out, in the pieces' own words, and how many pieces the text has; nil if it keeps all.
  func truncation(of text: String, length: Int) -> (dropped: String, tokens: Int)? {
    let content = content(of: text, limit: .max)
    guard content.count > length - 2 else { return nil }
    let pieces = content.dropFirst(length - 2).map { (added.spellings[$0] ?? spellings[$0] ?? []).text }
    return (pieces.reduce("") { $1.hasPrefix("##") ? $0 + $1.dropFirst(2) : $0.isEmpty ? $1 : "\($0) \($1)" }, content.count)
  }

  /// The identifiers of the text alone: all, or at least the first `limit`.
  private func content(of text: String, limit: Int) -> [Int] {
    var result: [Int] = []
    let scalars = Array(text.unicodeScalars)
    for piece in added.literal.split(scalars) where result.count < limit {
      switch piece {
      case .token(let identifier): result.append(identifier)
      case .text(let range):
        for word in normalizer.words(scalars[range]) where result.count < limit { result += pieces(of: word) }
      }
    }
    return result
  }

  /// The longest pieces of a word from left to right; pieces that do not begin it are written with `##`.
  private func pieces(of word: [Unicode.Scalar]) -> [Int] {
    guard word.count <= Self.longestWord else { return [unkTokenID] }
    let bytes = word.flatMap { Array(UTF8.encode($0) ?? UTF8.encodedReplacementCharacter) }
    var result: [Int] = []
    var start = 0
    while start < bytes.count {
      let mark: Spelling = start == 0 ? [] : [UInt8(ascii: "#"), UInt8(ascii: "#")]
      let ends = (start + 1...min(bytes.count, start + longest)).reversed()
      guard let (end, identifier) = ends.lazy.compactMap({ end in vocabulary[mark + bytes[start..<end]].map { (end, $0) } }).first else {
        return [unkTokenID]
      }
      result.append(Int(identifier))
      start = end
    }
    return result
  }

  /// Longer words are unknown (`max_input_chars_per_word`).
  private static let longestWord = 100
}

extension WrittenToken {
  fileprivate init(_ text: String) { self.init(content: Spelling(text.utf8)) }
}

/// The keys of `tokenizer_config.json` that matter.
private struct BertTokenizerKeys: Decodable {
  var do_lower_case, tokenize_chinese_chars, strip_accents: Bool?
  var cls_token, sep_token, pad_token, unk_token, mask_token: WrittenToken?
  var added_tokens_decoder: [Int: WrittenToken]?
  var truncation_side, padding_side: String?
}

/// The part of `tokenizer.json` that may differ between tokenizers of BERT.
private struct SerializedTokenizer: Decodable {
  struct Model: Decodable {
    let type: String?
    let vocab: [String: Int]
  }
  let model: Model
  let added_tokens: [SerializedToken]?
}
