import Foundation
import Testing
import TextEncoder

@Suite(.serialized) struct TokenizerBadInputTests {
  /// Each takes one to five seconds; anything quadratic would take days.
  @Test(.timeLimit(.minutes(2)), arguments: ["a", "a\u{323}\u{301}", "\u{1}", "the 語 ", "<|endoftext|>"])
  func tenMegabytesOf(_ unit: String) throws {
    let tokenizer = try CLIPTokenizer.bundled()
    let prompt = String(repeating: unit, count: 10_000_000 / unit.utf8.count)
    let padded = tokenizer.encodePadded(prompt)
    #expect(padded.count == 77)
    #expect(padded.first == tokenizer.bosTokenID)
    #expect(padded.last == tokenizer.eosTokenID)
  }

  /// The files of a tokenizer that works: bytes, and a merge of `a` and `b`.
  private static let characters = (0x21...0x7E).map { $0 } + (0xA1...0xAC) + (0xAE...0xFF) + (0x100...0x143)
  private static let tokens =
    characters.compactMap { Unicode.Scalar(UInt32($0)) }.map(String.init).flatMap { [$0, $0 + "</w>"] } + [
      "ab", "<|startoftext|>", "<|endoftext|>",
    ]
  private static let vocabulary: Data = {
    let entries = Dictionary(uniqueKeysWithValues: zip(tokens, 0...))
    return (try? JSONEncoder().encode(entries)) ?? Data()
  }()

  private func tokenizer(
    vocabulary: Data = Self.vocabulary, merges: String = "#version: 0.2\na b\n", configuration: String? = nil, map: String? = nil,
    added: String? = nil
  ) throws -> CLIPTokenizer {
    func data(_ text: String?) -> Data? { text.map { Data($0.utf8) } }
    return try CLIPTokenizer(
      vocabulary: vocabulary, merges: Data(merges.utf8), configuration: data(configuration), specialTokensMap: data(map),
      addedTokens: data(added))
  }

  @Test func theSoundFilesWork() throws {
    #expect(try tokenizer().tokens("abb a") == ["ab", "b</w>", "a</w>"])
    #expect(try tokenizer(merges: "a b\r\n").tokens("abb") == ["ab", "b</w>"])
  }

  @Test(arguments: [
    "", "[1, 2]", "{\"a\": \"b\"}", "{\"a\": -1}", "{\"a\": 1.5}", "{\"a\": 99999999999}", "{\"a\": 1e40}", "{\"a\": 1", "{}", "{\"a\": 0}",
    "\u{0}", String(repeating: "[", count: 100_000),
  ])
  func wrongVocabulary(_ vocabulary: String) {
    #expect {
      try tokenizer(vocabulary: Data(vocabulary.utf8))
    } throws: {
      if case .invalidVocabulary = $0 as? TokenizerError { true } else { false }
    }
  }

  @Test(arguments: [
    ("a b\na\n", 2), ("a b c\n", 1), ("a  b\n", 1), ("\n", 1), ("a b\n\n", 2), ("b a\n", 1), ("#version: 0.2\nzz b\n", 2),
    ("a b\n#version\n \n", 3),
  ])
  func wrongMerges(_ merges: String, _ line: Int) {
    #expect {
      try tokenizer(merges: merges)
    } throws: {
      if case .invalidMerges(line, _) = $0 as? TokenizerError { true } else { false }
    }
  }

  @Test func mergesThatAreNotText() {
    #expect(throws: TokenizerError.invalidMerges(line: 1, reason: "the file is not UTF-8 text")) {
      try CLIPTokenizer(vocabulary: Self.vocabulary, merges: Data([0x61, 0x20, 0xFF, 0x0A]))
    }
  }

  @Test(arguments: [
    "", "[]", "{\"model_max_length\": 1}", "{\"model_max_length\": -5}", "{\"model_max_length\": 2.5}", "{\"model_max_length\": 1e9}",
    "{\"model_max_length\": \"x\"}", "{\"bos_token\": 3}", "{\"pad_token\": \"\"}", "{\"eos_token\": {\"lstrip\": true}}",
    "{\"truncation_side\": \"up\"}", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"y\"}}}", "{\"extra_special_tokens\": 7}",
  ])
  func wrongConfiguration(_ configuration: String) {
    #expect {
      try tokenizer(configuration: configuration)
    } throws: {
      if case .invalidConfiguration("tokenizer_config.json", _) = $0 as? TokenizerError { true } else { false }
    }
  }

  @Test func wrongNeighbours() {
    #expect {
      try tokenizer(map: "{\"pad_token\": [1]}")
    } throws: {
      if case .invalidConfiguration("special_tokens_map.json", _) = $0 as? TokenizerError { true } else { false }
    }
    #expect {
      try tokenizer(added: "{\"x\": \"y\"}")
    } throws: {
      if case .invalidConfiguration("added_tokens.json", _) = $0 as? TokenizerError { true } else { false }
    }
  }

  @Test(arguments: [
    "", "{}", "{\"model\": {\"vocab\": {}}}", "{\"model\": {\"type\": \"Unigram\", \"vocab\": {}, \"merges\": []}}",
    "{\"model\": {\"vocab\": {}, \"merges\": [3]}}",
  ])
  func wrongSerializedTokenizer(_ file: String) {
    #expect {
      try CLIPTokenizer(tokenizer: Data(file.utf8))
    } throws: {
      if case .invalidConfiguration("tokenizer.json", _) = $0 as? TokenizerError { true } else { false }
    }
  }

  @Test func missingFiles() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "tokenizer-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    #expect(throws: TokenizerError.missingFile(path: folder.appending(path: "vocab.json").path)) { try CLIPTokenizer(folder: folder) }
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    try Self.vocabulary.write(to: folder.appending(path: "vocab.json"))
    #expect(throws: TokenizerError.missingFile(path: folder.appending(path: "merges.txt").path)) { try CLIPTokenizer(folder: folder) }
    try FileManager.default.createDirectory(at: folder.appending(path: "merges.txt"), withIntermediateDirectories: true)
    #expect {
      try CLIPTokenizer(folder: folder)
    } throws: {
      if case .unreadableFile = $0 as? TokenizerError { true } else { false }
    }
  }
}
