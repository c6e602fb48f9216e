import Foundation

extension CLIPTokenizer {
  /// A tokenizer from the contents of its files.
  ///
  /// - Parameters:
  ///   - vocabulary: `vocab.json`, an object that maps tokens to identifiers.
  ///   - merges: `merges.txt`, one merge per line, the earliest first.
  ///   - configuration: `tokenizer_config.json`.
  ///   - specialTokensMap: `special_tokens_map.json`.
  ///   - addedTokens: `added_tokens.json`.
  /// - Throws: `TokenizerError` for the first thing that is wrong with them.
  public init(
    vocabulary: Data, merges: Data, configuration: Data? = nil, specialTokensMap: Data? = nil, addedTokens: Data? = nil
  ) throws(TokenizerError) {
    let entries: [String: Int]
    do {
      entries = try decodeJSON([String: Int].self, vocabulary, file: "vocab.json")
    } catch {
      throw .invalidVocabulary(reason: "vocab.json is not a JSON object of tokens and their numbers")
    }
    try self.init(
      vocabulary: Self.vocabulary(entries), merges: Self.rules(merges),
      configuration: TokenizerConfiguration(
        configuration: configuration, specialTokensMap: specialTokensMap, addedTokens: addedTokens, serialized: []))
  }

  /// A tokenizer from a `tokenizer.json`, which holds vocabulary, merges and added tokens.
  ///
  /// - Parameters:
  ///   - configuration: the `tokenizer_config.json` next to it. The other files are as for `vocab.json` and `merges.txt`.
  /// - Throws: `TokenizerError` for the first thing that is wrong with them.
  public init(
    tokenizer: Data, configuration: Data? = nil, specialTokensMap: Data? = nil, addedTokens: Data? = nil
  ) throws(TokenizerError) {
    let file = try decodeJSON(SerializedTokenizer.self, tokenizer, file: "tokenizer.json")
    guard file.model.type == nil || file.model.type == "BPE" else {
      throw .invalidConfiguration(file: "tokenizer.json", reason: "its model is \(file.model.type ?? ""), but CLIP's is BPE")
    }
    var rules: [MergeRule] = []
    for (index, merge) in file.model.merges.enumerated() {
      rules.append(try Self.rule(merge.parts.map { Spelling($0.utf8) }, line: index + 1))
    }
    try self.init(
      vocabulary: Self.vocabulary(file.model.vocab), merges: rules,
      configuration: TokenizerConfiguration(
        configuration: configuration, specialTokensMap: specialTokensMap, addedTokens: addedTokens, serialized: file.added_tokens ?? []))
  }

  /// A tokenizer from a folder in transformers' layout: `tokenizer.json` or else `vocab.json` and `merges.txt`, and, if they exist,
  /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
  ///
  /// - Throws: `TokenizerError` if a file is missing, unreadable or wrong.
  public init(folder: URL) throws(TokenizerError) {
    func optional(_ name: String) throws(TokenizerError) -> Data? {
      let url = folder.appending(path: name)
      guard FileManager.default.fileExists(atPath: url.path) else { return nil }
      do {
        return try Data(contentsOf: url)
      } catch {
        throw .unreadableFile(path: url.path, reason: error.localizedDescription)
      }
    }
    func required(_ name: String) throws(TokenizerError) -> Data {
      guard let data = try optional(name) else { throw .missingFile(path: folder.appending(path: name).path) }
      return data
    }
    let configuration = try optional("tokenizer_config.json")
    let specialTokensMap = try optional("special_tokens_map.json")
    let addedTokens = try optional("added_tokens.json")
    if let tokenizer = try optional("tokenizer.json") {
      try self.init(tokenizer: tokenizer, configuration: configuration, specialTokensMap: specialTokensMap, addedTokens: addedTokens)
    } else {
      try self.init(
        vocabulary: required("vocab.json"), merges: required("merges.txt"), configuration: configuration,
        specialTokensMap: specialTokensMap, addedTokens: addedTokens)
    }
  }

  private static func vocabulary(_ entries: [String: Int]) throws(TokenizerError) -> [Spelling: UInt32] {
    var result = [Spelling: UInt32](minimumCapacity: entries.count)
    for (token, identifier) in entries {
      guard let value = UInt32(exactly: identifier) else {
        throw .invalidVocabulary(reason: "the token \"\(token)\" has the number \(identifier)")
      }
      result[Spelling(token.utf8)] = value
    }
    return result
  }

  /// The rules of a `merges.txt`: a line with its version, then lines of two tokens with one space between them.
  static func rules(_ file: Data) throws(TokenizerError) -> [MergeRule] {
    guard let text = String(validating: file, as: UTF8.self) else {
      throw .invalidMerges(line: 1, reason: "the file is not UTF-8 text")
    }
    let version = Spelling("#version".utf8)
    var lines = text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    if lines.last?.isEmpty == true { lines.removeLast() }
    var rules: [MergeRule] = []
    rules.reserveCapacity(lines.count)
    for (index, line) in lines.enumerated() where !line.starts(with: version) {
      let content = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
      rules.append(
        try rule(content.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false).map(Spelling.init), line: index + 1))
    }
    return rules
  }

  private static func rule(_ parts: [Spelling], line: Int) throws(TokenizerError) -> MergeRule {
    guard parts.count == 2 else {
      throw .invalidMerges(line: line, reason: "it has not two tokens with one space between")
    }
    return MergeRule(left: parts[0], right: parts[1], line: line)
  }
}

/// The part of `tokenizer.json` that may differ between tokenizers of CLIP.
private struct SerializedTokenizer: Decodable {
  struct Model: Decodable {
    let type: String?
    let vocab: [String: Int]
    let merges: [Merge]
  }

  /// `"a b"` or `["a", "b"]`.
  struct Merge: Decodable {
    let parts: [String]

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let pair = try? container.decode([String].self) {
        parts = pair
      } else {
        parts = try container.decode(String.self).split(separator: " ", omittingEmptySubsequences: false).map(String.init)
      }
    }
  }

  let model: Model
  let added_tokens: [SerializedToken]?
}
