import ArgumentParser
import Foundation
import LatentDiffusion

struct Tokenize: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize", abstract: "Prints the padded token ids of a text as a JSON array.",
    discussion: """
      With a profile other than diffusers it is an array of such arrays, one for each chunk. With compel it is one for each text that is blended or stands \
      beside others.

      ldm tokenize --words --profile webui "a (red:1.2) apple"

      Example: ldm tokenize --profile webui --words "a (red:1.2) apple"
      """)
  @OptionGroup var model: ModelOptions

  @Option(help: "Whose marks the text has: diffusers has none, and all is plain text.")
  var profile = PromptProfile.diffusers

  @Flag(help: "Shows the words instead, each with its chunk, its weight and its tokens, and which of them are left out.")
  var words = false

  @Flag(help: "Shows the words as JSON: a list of words with chunk (null where a word is left out), weight and tokens.")
  var json = false

  @Argument(help: "The text.")
  var text: String

  func validate() throws {
    guard words || !json else { throw ValidationError("--json goes with --words.") }
  }

  func run() throws {
    let tokenizer = try StableDiffusion.tokenizer(from: model.files.base, replacing: model.files.parts)
    let tokens = try tokenizer.tokens(of: text, profile: profile)
    guard words else {
      return try profile == .diffusers
        ? printJSON(tokens.chunks[0].tokens, isPretty: false) : printJSON(tokens.chunks.map(\.tokens), isPretty: false)
    }
    let words = tokenizer.words(of: tokens)
    if json { return try printJSON(words.map(Word.init), isPretty: false) }
    print("\(tokens.count) tokens in \(tokens.chunks.count) chunk\(tokens.chunks.count == 1 ? "" : "s")")
    print("chunk  weight  word: tokens")
    for word in words {
      let chunk = word.chunk.map { "\($0 + 1)" } ?? "–"
      let weight = String(format: "%.4g", word.weight)
      print("\(chunk.padded(5))  \(weight.padded(6))  \(word.text): \(word.tokens.map(String.init).joined(separator: " "))")
    }
    guard let first = words.first(where: { $0.chunk == nil }) else { return }
    Progress.warn("\(tokens.dropped.count) of \(tokens.count) tokens are left out, from \"\(first.text)\" on.")
  }

  /// As JSON. A chunk that there is not is said.
  private struct Word: Encodable {
    let word: PromptWord

    private enum CodingKeys: CodingKey { case word, chunk, weight, tokens }

    func encode(to encoder: any Encoder) throws {
      var values = encoder.container(keyedBy: CodingKeys.self)
      try values.encode(word.text, forKey: .word)
      try values.encode(word.chunk, forKey: .chunk)
      try values.encode(word.weight, forKey: .weight)
      try values.encode(word.tokens, forKey: .tokens)
    }
  }
}

extension String {
  /// With spaces before it, up to a width.
  fileprivate func padded(_ width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
}
