import ArgumentParser
import Foundation
import LatentDiffusion

struct Tokenize: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize", abstract: "Prints the padded token ids of a text as a JSON array.",
    discussion: """
      With a profile other than diffusers it is an array of such arrays, one for each chunk. With compel it is one for each text that is blended or stands \
      beside others. A prompt that changes from step to step, or whose parts are added up (AND), is several texts: an array of objects with the steps that \
      each is for, what it counts, and its chunks.

      Example: ldm tokenize --profile webui --words "a [red:green:0.5] apple"
      """)
  @OptionGroup var model: ModelOptions

  @Option(help: "Whose marks the text has: diffusers has none, and all is plain text.")
  var profile = PromptProfile.diffusers

  @Option(help: "Steps of the drawing, at parts of which [a:b:0.5] changes.")
  var steps = 50

  @Flag(help: "Shows the words instead, each with its chunk, its weight and its tokens, and which of them are left out.")
  var words = false

  @Flag(help: "Shows the words as JSON: a list of words with chunk (null where a word is left out), weight and tokens.")
  var json = false

  @Argument(help: "The text.")
  var text: String

  func validate() throws {
    guard words || !json else { throw ValidationError("--json goes with --words.") }
    guard (1...100_000).contains(steps) else { throw ValidationError("--steps must be from 1 to 100000.") }
  }

  func run() throws {
    let tokenizer = try StableDiffusion.tokenizer(from: model.files.base, replacing: model.files.parts)
    let texts = try texts(tokenizer)
    if words, !json { return texts.forEach(show) }
    if let only = texts.first, texts.count == 1 {
      if json { return try printJSON(only.words, isPretty: false) }
      return try profile == .diffusers
        ? printJSON(only.tokens.chunks[0].tokens, isPretty: false) : printJSON(only.chunks, isPretty: false)
    }
    try printJSON(texts.map { Listed(text: $0, hasWords: words) }, isPretty: false)
  }

  /// What the text says in each part of it and each stretch of steps.
  private func texts(_ tokenizer: CLIPTokenizer) throws -> [Text] {
    try profile.composition(text).flatMap { part in
      var first = 1
      return try profile.schedule(part.text, steps: steps).map { last, text in
        defer { first = last + 1 }
        let tokens = try tokenizer.tokens(of: text, profile: profile)
        return Text(
          text: text, steps: first...max(first, last), weight: part.weight, tokens: tokens,
          words: tokenizer.words(of: tokens).map(Word.init))
      }
    }
  }

  /// Prints the words of a text.
  private func show(_ text: Text) {
    let (tokens, weight) = (text.tokens, text.weight)
    if text.steps != 1...steps || weight != 1 {
      let counted = weight == 1 ? "" : ", which counts \(String(format: "%.4g", weight))"
      print("steps \(text.steps.lowerBound)–\(text.steps.upperBound) of \(steps)\(counted): \(text.text)")
    }
    print("\(tokens.count) tokens in \(tokens.chunks.count) chunk\(tokens.chunks.count == 1 ? "" : "s")")
    print("chunk  weight  word: tokens")
    for word in text.words.map(\.word) {
      let chunk = word.chunk.map { "\($0 + 1)" } ?? "–"
      let weight = String(format: "%.4g", word.weight)
      print("\(chunk.padded(5))  \(weight.padded(6))  \(word.text): \(word.tokens.map(String.init).joined(separator: " "))")
    }
    guard let first = text.words.first(where: { $0.word.chunk == nil })?.word else { return }
    Progress.warn("\(tokens.dropped.count) of \(tokens.count) tokens are left out, from \"\(first.text)\" on.")
  }

  /// What is read at once, in some steps.
  private struct Text {
    let text: String
    /// Counted from 1.
    let steps: ClosedRange<Int>
    let weight: Double
    let tokens: PromptTokens
    let words: [Word]

    var chunks: [[Int]] { tokens.chunks.map(\.tokens) }
  }

  /// As JSON, where there are several.
  private struct Listed: Encodable {
    let text: Text
    let hasWords: Bool

    private enum CodingKeys: CodingKey { case text, steps, weight, words, chunks }

    func encode(to encoder: any Encoder) throws {
      var values = encoder.container(keyedBy: CodingKeys.self)
      try values.encode(text.text, forKey: .text)
      try values.encode([text.steps.lowerBound, text.steps.upperBound], forKey: .steps)
      try values.encode(text.weight, forKey: .weight)
      if hasWords { try values.encode(text.words, forKey: .words) } else { try values.encode(text.chunks, forKey: .chunks) }
    }
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
