import Foundation
import LatentDiffusionTestSupport
import Testing
import TextEncoder

private let folder = fixtures.appending(path: "tokenizer")
private let emojiFolder = fixtures.appending(path: "../../Sources/EmojiModel/Resources/emoji/tokenizer").standardized

/// A line with what transformers makes of it: CLIP's own vocabulary, and the small one.
private struct Line: Decodable {
  let text: String
  let clip, emoji: [Int]

  init(from decoder: any Decoder) throws {
    var container = try decoder.unkeyedContainer()
    text = try container.decode(String.self)
    clip = try unpacked(container.decode(Data.self))
    emoji = try unpacked(container.decode(Data.self))
  }

}

/// Little-endian 16-bit words.
private func unpacked(_ data: Data) -> [Int] {
  let bytes = [UInt8](data)
  return stride(from: 0, to: bytes.count, by: 2).map { Int(bytes[$0]) | Int(bytes[$0 + 1]) << 8 }
}

private func lines(in folder: URL) throws -> [Line] {
  let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix("lines-") }.sorted()
  return try names.flatMap { try JSONDecoder().decode([Line].self, from: Data(contentsOf: folder.appending(path: $0))) }
}

private func escaped(_ text: String) -> String {
  text.unicodeScalars.prefix(40).map { $0.escaped(asASCII: true) }.joined()
}

/// Compares every line.
private func compare(_ lines: [Line]) throws {
  let clip = try CLIPTokenizer.bundled()
  let emoji = try CLIPTokenizer(folder: emojiFolder)
  for line in lines {
    for (tokenizer, expected) in [(clip, line.clip), (emoji, line.emoji)] {
      expectSame(tokenizer.encode(line.text), expected, escaped(line.text))
    }
  }
}

/// A text with all that a tokenizer makes of it.
private struct Result: Decodable {
  let text: String
  let ids, padded: [Int]
  let decoded, content: String

  func check(_ tokenizer: CLIPTokenizer, _ name: String) {
    let place = Comment(rawValue: "\(name): \(escaped(text))")
    #expect(tokenizer.encode(text) == ids, place)
    #expect(tokenizer.encodePadded(text) == padded, place)
    #expect(same(tokenizer.decode(ids), decoded), place)
    #expect(same(tokenizer.decode(padded, skipSpecialTokens: true), content), place)
  }
}

/// Swift's `==` would let canonically equivalent texts pass.
private func same(_ a: String, _ b: String) -> Bool { a.unicodeScalars.elementsEqual(b.unicodeScalars) }

@Suite struct CLIPTokenizerTests {
  @Test(.compares("CLIP's tokens", in: .files, with: "transformers", unit: .equality)) func equalsTransformersOnManyScripts() throws {
    let lines = try lines(in: folder)
    #expect(lines.count >= 5000)
    try compare(lines)
  }

  @Test(.enabled(if: ProcessInfo.processInfo.environment["LATENTDIFFUSION_TOKENIZER_LINES"] != nil))
  func equalsTransformersOnALargerSet() throws {
    let path = try #require(ProcessInfo.processInfo.environment["LATENTDIFFUSION_TOKENIZER_LINES"])
    let lines = try lines(in: URL(filePath: path))
    #expect(!lines.isEmpty)
    try compare(lines)
  }

  @Test func equalsTransformersUnderManyConfigurations() throws {
    struct Configuration: Decodable {
      let name: String
      let files: [String: String]
      let cases: [Result]
    }
    let vocabulary = try Data(contentsOf: emojiFolder.appending(path: "vocab.json"))
    let merges = try Data(contentsOf: emojiFolder.appending(path: "merges.txt"))
    for part in 0..<2 {
      let file = folder.appending(path: "configurations-\(part).json")
      for configuration in try JSONDecoder().decode([Configuration].self, from: Data(contentsOf: file)) {
        func data(_ name: String) -> Data? { configuration.files[name].map { Data($0.utf8) } }
        let tokenizer = try CLIPTokenizer(
          vocabulary: vocabulary, merges: merges, configuration: data("tokenizer_config.json"),
          specialTokensMap: data("special_tokens_map.json"), addedTokens: data("added_tokens.json"))
        for result in configuration.cases { result.check(tokenizer, configuration.name) }
      }
    }
  }

  @Test func equalsTransformersOnOddVocabularies() throws {
    struct Vocabulary: Decodable {
      struct Case: Decodable {
        let text: String
        let ids: [Int]
        init(from decoder: any Decoder) throws {
          var container = try decoder.unkeyedContainer()
          text = try container.decode(String.self)
          ids = try container.decode([Int].self)
        }
      }
      let vocabulary, merges: String
      let cases: [Case]
    }
    let file = try Data(contentsOf: folder.appending(path: "small.json"))
    for (number, small) in try JSONDecoder().decode([Vocabulary].self, from: file).enumerated() {
      let tokenizer = try CLIPTokenizer(vocabulary: Data(small.vocabulary.utf8), merges: Data(small.merges.utf8))
      for entry in small.cases { #expect(tokenizer.encode(entry.text) == entry.ids, "vocabulary \(number): \(entry.text)") }
    }
  }

  @Test func readsWhatTransformers5Saves() throws {
    let tokenizer = try CLIPTokenizer(folder: folder.appending(path: "saved"))
    let cases = try JSONDecoder().decode([Result].self, from: Data(contentsOf: folder.appending(path: "saved-cases.json")))
    #expect(cases.count > 60)
    for result in cases { result.check(tokenizer, "saved") }
  }

  @Test func decodesWhatTransformersDecodes() throws {
    struct Row: Decodable {
      let tokens: [Int]
      let text, content: String

      init(from decoder: any Decoder) throws {
        var container = try decoder.unkeyedContainer()
        tokens = try unpacked(container.decode(Data.self))
        text = try container.decode(String.self)
        content = try container.decode(String.self)
      }
    }
    let tokenizer = try CLIPTokenizer.bundled()
    for row in try JSONDecoder().decode([Row].self, from: Data(contentsOf: folder.appending(path: "decoding.json"))) {
      #expect(same(tokenizer.decode(row.tokens), row.text), "\(row.tokens)")
      #expect(same(tokenizer.decode(row.tokens, skipSpecialTokens: true), row.content), "\(row.tokens)")
    }
  }

  @Test func bundledVocabularyIsOpenAIs() throws {
    let tokenizer = try CLIPTokenizer.bundled()
    #expect(tokenizer.maximumLength == 77)
    #expect(tokenizer.bosTokenID == 49406)
    #expect(tokenizer.eosTokenID == 49407)
    #expect(tokenizer.padTokenID == 49407)
    #expect(
      tokenizer.tokens("A photo of a café, isn't it?") == [
        "a</w>", "photo</w>", "of</w>", "a</w>", "cafÃ©</w>", ",</w>", "isn</w>", "'t</w>", "it</w>", "?</w>",
      ])
    #expect(tokenizer.encodePadded("") == [49406] + [Int](repeating: 49407, count: 76))
    #expect(tokenizer.decode([49406, 320, 736, 3055, 49407, -1, 1 << 40]) == "<|startoftext|>a red apple <|endoftext|>")
  }
}
