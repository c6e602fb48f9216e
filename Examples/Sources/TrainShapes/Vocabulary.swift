import Foundation

/// The files of a tokenizer of CLIP's kind that has one token for each word of the captions.
///
/// Its merges are learnt as in byte-pair encoding: the pair of symbols that is most frequent in the words becomes a symbol, until each word is one. So applying
/// them in their order ends with the same symbols. Characters of printable ASCII are tokens, too; others are unknown.
struct Vocabulary: Sendable {
  private let merges: [String]
  private let tokens: [String]

  private static let begin = "<|startoftext|>"
  private static let end = "<|endoftext|>"
  private static let endOfWord = "</w>"

  /// Of a text with its begin and its end, as many as the longest caption needs.
  static let length = 16

  /// - Parameter words: of lower-case letters.
  init(words: [String]) {
    var spelled = Set(words).sorted().map { word in word.dropLast().map(String.init) + [word.suffix(1) + Self.endOfWord] }
    var merges: [String] = [], results: [String] = []
    while let pair = Self.mostFrequentPair(of: spelled) {
      merges.append("\(pair.left) \(pair.right)")
      results.append(pair.left + pair.right)
      spelled = spelled.map { Self.merged($0, pair) }
    }
    let characters = (33...126).map { String(UnicodeScalar(UInt8($0))) }
    self.merges = merges
    tokens = characters + characters.map { $0 + Self.endOfWord } + results + [Self.begin, Self.end]
  }

  /// How many tokens there are. The last two are those for begin and end.
  var count: Int { tokens.count }

  private struct Pair: Hashable { let left: String, right: String }

  /// The earliest in the alphabet of those that are equally frequent; nil if no word has two symbols.
  private static func mostFrequentPair(of words: [[String]]) -> Pair? {
    var counts: [Pair: Int] = [:]
    for word in words { for (left, right) in zip(word, word.dropFirst()) { counts[Pair(left: left, right: right), default: 0] += 1 } }
    return counts.max { ($0.value, $1.key.left, $1.key.right) < ($1.value, $0.key.left, $0.key.right) }?.key
  }

  private static func merged(_ word: [String], _ pair: Pair) -> [String] {
    word.reduce(into: []) { symbols, symbol in
      if symbols.last == pair.left, symbol == pair.right { symbols[symbols.count - 1] += symbol } else { symbols.append(symbol) }
    }
  }

  /// Writes the folder of the tokenizer.
  func write(to folder: URL) throws {
    func marked(_ token: String) -> [String: Any] {
      ["content": token, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false]
    }
    let special: [String: Any] = [
      "bos_token": marked(Self.begin), "eos_token": marked(Self.end), "unk_token": marked(Self.end), "pad_token": Self.end,
    ]
    let own: [String: Any] = [
      "add_prefix_space": false, "do_lower_case": true, "errors": "replace", "model_max_length": Self.length,
      "tokenizer_class": "CLIPTokenizer",
    ]
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let numbers = Dictionary(uniqueKeysWithValues: zip(tokens, 0...))
    try JSON.data(numbers).write(to: folder.appending(path: "vocab.json"))
    try Data(("#version: 0.2\n" + merges.map { $0 + "\n" }.joined()).utf8).write(to: folder.appending(path: "merges.txt"))
    try JSON.data(own.merging(special) { $1 }).write(to: folder.appending(path: "tokenizer_config.json"))
    try JSON.data(special).write(to: folder.appending(path: "special_tokens_map.json"))
  }
}

/// JSON as diffusers writes it: sorted keys, indented.
enum JSON {
  static func data(_ object: [String: Any]) throws -> Data {
    try JSONSerialization.data(withJSONObject: object, options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
  }
}
