import Foundation

/// The settings from `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the `added_tokens` of a
/// `tokenizer.json`, resolved in transformers' order.
struct TokenizerConfiguration: Sendable {
  enum Side: String, Decodable, Sendable {
    case left, right
  }

  var maximumLength = 77
  var truncationSide = Side.right
  var paddingSide = Side.right
  var splitsSpecialTokens = false
  var bos = Spelling("<|startoftext|>".utf8)
  var eos = Spelling("<|endoftext|>".utf8)
  var unknown = Spelling("<|endoftext|>".utf8)
  var padding = Spelling("<|endoftext|>".utf8)
  /// In the order in which they are added.
  var addedTokens: [AddedToken] = []

  /// - Parameters:
  ///   - configuration: `tokenizer_config.json`.
  ///   - specialTokensMap: `special_tokens_map.json`; overrides the configuration, but is ignored if that has an `added_tokens_decoder`.
  ///   - addedTokens: `added_tokens.json`; ignored in the same case.
  ///   - serialized: the `added_tokens` of a `tokenizer.json`; ignored in the same case.
  init(configuration: Data?, specialTokensMap: Data?, addedTokens: Data?, serialized: [SerializedToken]) throws(TokenizerError) {
    var file = ConfigurationFile()
    if let configuration { file = try decodeJSON(ConfigurationFile.self, configuration, file: "tokenizer_config.json") }
    if file.extra?.isEmpty ?? true { file.extra = file.additional ?? file.extra }
    var listed: [Int: WrittenToken] = [:]
    if let decoder = file.addedTokensDecoder {
      listed = decoder
    } else {
      if let specialTokensMap {
        file.merge(try decodeJSON(ConfigurationFile.self, specialTokensMap, file: "special_tokens_map.json"))
      }
      if let addedTokens {
        for (content, identifier) in try decodeJSON([String: Int].self, addedTokens, file: "added_tokens.json") {
          let isSpecial = file.special.contains(Spelling(content.utf8))
          listed[identifier] = WrittenToken(content: Spelling(content.utf8), isNormalized: !isSpecial, isSpecial: isSpecial)
        }
      }
      for token in serialized { listed[token.id] = token.token }
    }
    try adopt(file, listed.sorted { $0.key < $1.key }.map(\.value))
  }

  private mutating func adopt(_ file: ConfigurationFile, _ listed: [WrittenToken]) throws(TokenizerError) {
    let byContent = Dictionary(listed.map { ($0.content, $0) }, uniquingKeysWith: { $1 })
    func named(_ name: String, _ fallback: Spelling?) -> WrittenToken? {
      if let written = file.named[name] { return byContent[written.content] ?? written }
      return fallback.map { WrittenToken(content: $0) }
    }
    let names: [(String, Spelling?)] = [
      ("bos_token", bos), ("eos_token", eos), ("unk_token", unknown), ("sep_token", nil), ("pad_token", padding),
      ("cls_token", nil), ("mask_token", nil),
    ]
    let special = names.compactMap { named($0.0, $0.1) }
    bos = named("bos_token", bos)?.content ?? bos
    eos = named("eos_token", eos)?.content ?? eos
    unknown = named("unk_token", unknown)?.content ?? unknown
    padding = named("pad_token", padding)?.content ?? padding

    var additions = listed
    let contents = Set(listed.map(\.content))
    for token in special + (file.extra ?? file.additional ?? []) where !contents.contains(token.content) && !additions.contains(token) {
      additions.append(token)
    }
    let specialContents = Set(special.map(\.content))
    addedTokens = additions.map { $0.resolved(isSpecial: specialContents.contains($0.content)) }

    truncationSide = file.truncationSide ?? .right
    paddingSide = file.paddingSide ?? .right
    splitsSpecialTokens = file.splitsSpecialTokens ?? false
    // transformers writes 10³⁰ if no length was set.
    guard let length = file.maximumLength, length < 1e20 else { return }
    guard length >= 2, length <= 1_000_000, length == length.rounded() else {
      throw .invalidConfiguration(
        file: "tokenizer_config.json", reason: "model_max_length is \(length); it counts tokens, from 2 (the two ends) to a million")
    }
    maximumLength = Int(length)
  }
}

/// A token of `tokenizer.json`'s `added_tokens`.
struct SerializedToken: Decodable {
  let id: Int
  let token: WrittenToken

  private enum CodingKeys: CodingKey {
    case id
  }

  init(from decoder: any Decoder) throws {
    id = try decoder.container(keyedBy: CodingKeys.self).decode(Int.self, forKey: .id)
    token = try WrittenToken(from: decoder)
  }
}

/// A token as a file writes it: a bare string, or an object with flags.
struct WrittenToken: Decodable, Equatable {
  var content: Spelling
  var isBare = true
  /// Nil means the opposite of `isSpecial`.
  var isNormalized: Bool?
  var isSpecial = false
  var isSingleWord = false
  var stripsLeft = false
  var stripsRight = false

  private enum CodingKeys: String, CodingKey {
    case content, normalized, special
    case isSingleWord = "single_word"
    case stripsLeft = "lstrip"
    case stripsRight = "rstrip"
  }

  init(content: Spelling) {
    self.content = content
  }

  init(content: Spelling, isNormalized: Bool, isSpecial: Bool) {
    self.content = content
    self.isNormalized = isNormalized
    self.isSpecial = isSpecial
    isBare = false
  }

  init(from decoder: any Decoder) throws {
    if let text = try? decoder.singleValueContainer().decode(String.self) {
      content = Spelling(text.utf8)
      return
    }
    let container = try decoder.container(keyedBy: CodingKeys.self)
    content = Spelling(try container.decode(String.self, forKey: .content).utf8)
    isBare = false
    isNormalized = try container.decodeIfPresent(Bool.self, forKey: .normalized)
    isSpecial = try container.decodeIfPresent(Bool.self, forKey: .special) ?? false
    isSingleWord = try container.decodeIfPresent(Bool.self, forKey: .isSingleWord) ?? false
    stripsLeft = try container.decodeIfPresent(Bool.self, forKey: .stripsLeft) ?? false
    stripsRight = try container.decodeIfPresent(Bool.self, forKey: .stripsRight) ?? false
  }

  /// A bare string is a special token, and so is a token with a name.
  func resolved(isSpecial isNamed: Bool) -> AddedToken {
    let special = isSpecial || isBare || isNamed
    return AddedToken(
      content: content, isNormalized: isNormalized ?? !special, isSpecial: special, isSingleWord: isSingleWord,
      stripsLeft: stripsLeft, stripsRight: stripsRight)
  }
}

/// The entries of `tokenizer_config.json` that matter; `special_tokens_map.json` has some of the same.
private struct ConfigurationFile: Decodable {
  var named: [String: WrittenToken] = [:]
  /// `extra_special_tokens`, and `additional_special_tokens`, their older name.
  var extra, additional: [WrittenToken]?
  /// The names that `special_tokens_map.json` set.
  private var mapped: Set<String> = []
  var addedTokensDecoder: [Int: WrittenToken]?
  var maximumLength: Double?
  var truncationSide, paddingSide: TokenizerConfiguration.Side?
  var splitsSpecialTokens: Bool?

  private enum CodingKeys: String, CodingKey, CaseIterable {
    case bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token
    case extra_special_tokens, additional_special_tokens, added_tokens_decoder
    case model_max_length, max_len, truncation_side, padding_side, split_special_tokens
  }

  init() {}

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    for key in [CodingKeys.bos_token, .eos_token, .unk_token, .sep_token, .pad_token, .cls_token, .mask_token] {
      named[key.rawValue] = try container.decodeIfPresent(WrittenToken.self, forKey: key)
    }
    extra = try Self.list(.extra_special_tokens, in: container)
    additional = try Self.list(.additional_special_tokens, in: container)
    addedTokensDecoder = try container.decodeIfPresent([Int: WrittenToken].self, forKey: .added_tokens_decoder)
    maximumLength =
      try container.decodeIfPresent(Double.self, forKey: .model_max_length)
      ?? container.decodeIfPresent(Double.self, forKey: .max_len)
    truncationSide = try container.decodeIfPresent(TokenizerConfiguration.Side.self, forKey: .truncation_side)
    paddingSide = try container.decodeIfPresent(TokenizerConfiguration.Side.self, forKey: .padding_side)
    splitsSpecialTokens = try container.decodeIfPresent(Bool.self, forKey: .split_special_tokens)
  }

  /// A list of tokens, or the values of an object of them.
  private static func list(_ key: CodingKeys, in container: KeyedDecodingContainer<CodingKeys>) throws -> [WrittenToken]? {
    if let list = try? container.decodeIfPresent([WrittenToken].self, forKey: key) { return list }
    return try container.decodeIfPresent([String: WrittenToken].self, forKey: key)?.sorted { $0.key < $1.key }.map(\.value)
  }

  /// Takes over the entries of a `special_tokens_map.json`. Its objects are special tokens, whatever their own flags.
  mutating func merge(_ map: ConfigurationFile) {
    func marked(_ token: WrittenToken) -> WrittenToken {
      var token = token
      token.isSpecial = !token.isBare
      return token
    }
    named.merge(map.named.mapValues(marked)) { $1 }
    mapped = Set(map.named.keys)
    if let more = map.extra?.map(marked) {
      let known = extra ?? []
      extra = known + more.filter { !known.contains($0) }
    }
    if let list = map.additional { additional = list.map(marked) }
  }

  /// The contents that count as special for `added_tokens.json`: not those of objects in the configuration.
  var special: Set<Spelling> {
    let names = named.filter { $0.value.isBare || mapped.contains($0.key) }.values
    return Set(names.map(\.content) + (extra ?? []).filter { $0.isBare || $0.isSpecial }.map(\.content))
  }
}

/// Decodes JSON, and reports an error as one sentence.
func decodeJSON<Value: Decodable>(_ type: Value.Type, _ data: Data, file: String) throws(TokenizerError) -> Value {
  do {
    return try JSONDecoder().decode(type, from: data)
  } catch let error as DecodingError {
    let context: DecodingError.Context
    switch error {
    case .typeMismatch(_, let found), .valueNotFound(_, let found), .keyNotFound(_, let found), .dataCorrupted(let found): context = found
    @unknown default: throw .invalidConfiguration(file: file, reason: "it is not the expected JSON")
    }
    let place = context.codingPath.map(\.stringValue).joined(separator: ".")
    throw .invalidConfiguration(
      file: file, reason: place.isEmpty ? "it is not the expected JSON" : "its entry \"\(place)\" has not the expected form")
  } catch {
    throw .invalidConfiguration(file: file, reason: "it is not the expected JSON")
  }
}
