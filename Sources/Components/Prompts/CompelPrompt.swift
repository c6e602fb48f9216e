/// A prompt as compel reads it: texts with weights, `(cat)1.2` and `cat++`, which may be blended, `("a cat", "a dog").blend(1, 0.5)`, or stand side by side,
/// `("a cat", "a dog").and()`.
///
/// Source: `PromptParser` of compel 2.5.
public struct CompelPrompt: Sendable, Equatable {
  /// What the text encoder reads by itself.
  public struct Text: Sendable, Equatable {
    /// In order, at least one. Neighbours have different weights.
    public let texts: [WeightedText]
    /// How much of a blend it is; 1 for a prompt that is none.
    public let share: Double
  }

  /// What stands beside others (`.and`), or the whole prompt.
  public struct Part: Sendable, Equatable {
    /// What is blended, or one text.
    public let blend: [Text]
    /// How far it is from an empty text: 1 is where the text encoder sees it.
    public let weight: Double
  }

  /// A LoRA that a prompt names: `withLora(name, 0.8)`, or `useLora`.
  public struct Lora: Sendable, Equatable {
    /// Letters, digits, `_` and `-`.
    public let name: String
    /// 1 without a number.
    public let weight: Double
  }

  /// At least one.
  public let parts: [Part]

  /// All texts in order, without what parts and blends make of them.
  public var texts: [WeightedText] { parts.flatMap { $0.blend.flatMap(\.texts) } }

  /// Texts of a prompt that are read by themselves.
  private static let mostTexts = 100

  /// - Parameter text: with compel's marks.
  /// - Throws: `ComponentError` for what compel ends with an error at, or leaves out without a word: `.swap`, words beside `.blend` and `.and`, weights that
  ///   are no numbers or not as many as the prompts, LoRAs, and more than 100 texts that are read by themselves.
  /// - Complexity: grows with the length of the text.
  public init(_ text: String) throws(ComponentError) {
    let read = try Self.read(text)
    if let lora = read.loras.first {
      throw Self.hasNo("LoRA for a prompt alone, as withLora(\(lora.name)) asks for, since a LoRA changes the model for all prompts")
    }
    parts = read.parts
  }

  /// A prompt without the LoRAs that it names, and these in order.
  /// - Throws: what `init` throws for all else.
  public static func takingLoras(from text: String) throws(ComponentError) -> (text: String, loras: [Lora]) {
    let read = try read(text)
    return (read.rest, read.loras)
  }

  /// The same text, which is a prompt that `init` takes.
  static func checked(_ text: String) throws(ComponentError) -> String {
    _ = try CompelPrompt(text)
    return text
  }

  private static func read(_ text: String) throws(ComponentError) -> (parts: [Part], rest: String, loras: [Lora]) {
    let scalars = spaced(text)
    guard !scalars.allSatisfy(\.isPythonSpace) else { return ([.empty], text, []) }
    var reader = Reader(), rest = String.UnicodeScalarView(), place = 0
    let parts = try reader.parts(CompelGrammar(scalars))
    guard parts.reduce(0, { $0 + $1.blend.count }) <= mostTexts else {
      throw .outOfRange(
        component: "The profile compel", option: "prompts in one", value: "more", allowed: "up to \(mostTexts)")
    }
    let found = reader.loras.sorted { $0.range.lowerBound < $1.range.lowerBound }
    for lora in found {
      rest += scalars[place..<lora.range.lowerBound]
      place = lora.range.upperBound
    }
    rest += scalars[place...]
    return (parts, found.isEmpty ? text : String(rest), found.map(\.lora))
  }

  /// The text with a space behind each comma. Of several commas in a row every other one gets one.
  private static func spaced(_ text: String) -> [Unicode.Scalar] {
    var result: [Unicode.Scalar] = [], isBehindComma = false
    for scalar in text.unicodeScalars {
      let isSpaced = isBehindComma && !scalar.isPythonSpace
      if isSpaced { result.append(" ") }
      result.append(scalar)
      isBehindComma = scalar == "," && !isSpaced
    }
    return result
  }

  fileprivate static func hasNo(_ option: String) -> ComponentError { .unsupported(component: "The profile compel", option: option) }
}

extension CompelPrompt.Part {
  fileprivate static let empty = Self([WeightedText("")], weight: 1)

  fileprivate init(_ texts: [WeightedText], weight: Double) {
    self.init(blend: [CompelPrompt.Text(texts: texts, share: 1)], weight: weight)
  }
}

/// Makes parts of what the grammar finds, and takes LoRAs out.
private struct Reader {
  var loras: [(lora: CompelPrompt.Lora, range: Range<Int>)] = []
  /// Texts of one weight in a row.
  private var runs: [(texts: [String], weight: Double)] = []

  mutating func parts(_ grammar: CompelGrammar) throws(ComponentError) -> [CompelPrompt.Part] {
    var parts: [CompelPrompt.Part] = []
    if let found = grammar.combination([".and", ".add"], from: 0) {
      guard grammar.isEnd(found.end) else { throw CompelPrompt.hasNo("words behind .and(…)") }
      let weights = try weights(found.arguments[...], of: found, in: "A list of prompts side by side")
      for (nodes, weight) in zip(found.prompts, weights) {
        let known = loras.count
        if let texts = try texts(nodes) {
          parts.append(.init(texts, weight: weight))
        } else if loras.count > known {
          // compel leaves out what has no words. Without its LoRA the prompt would have an empty text there.
          throw CompelPrompt.hasNo("LoRA that stands alone among the prompts of .and(…)")
        }
      }
    } else {
      let before = grammar.loras(from: 0)
      _ = try texts(before.nodes)
      if let found = grammar.combination([".blend"], from: before.end) {
        let after = grammar.loras(from: found.end)
        guard grammar.isEnd(after.end) else { throw CompelPrompt.hasNo("words beside .blend(…)") }
        parts = [.init(blend: try blend(found), weight: 1)]
        _ = try texts(after.nodes)
      } else {
        let prompt = grammar.prompt(from: before.end)
        guard grammar.isEnd(prompt.end) else { throw CompelPrompt.hasNo("vertical tab or form feed in prompts") }
        parts = try texts(prompt.nodes).map { [.init($0, weight: 1)] } ?? []
      }
    }
    return parts.isEmpty ? [.empty] : parts
  }

  /// The weights become parts of one, where nothing says otherwise.
  private mutating func blend(_ found: CompelGrammar.Combination) throws(ComponentError) -> [CompelPrompt.Text] {
    let isWhole = found.arguments.last != .word("no_normalize")
    let weights = try weights(isWhole ? found.arguments[...] : found.arguments.dropLast(), of: found, in: "A blend")
    let sum = isWhole ? weights.reduce(0, +) : 1
    guard sum != 0, (1 / sum).isFinite else {
      throw .outOfRange(component: "A blend", option: "weights", value: "a sum of 0", allowed: "with another sum than 0")
    }
    var blend: [CompelPrompt.Text] = []
    for (nodes, weight) in zip(found.prompts, weights) {
      guard let texts = try texts(nodes) else { throw CompelPrompt.hasNo("prompt without a word in .blend(…)") }
      blend.append(.init(texts: texts, share: weight / sum))
    }
    return blend
  }

  private func weights(
    _ arguments: ArraySlice<CompelGrammar.Argument>, of found: CompelGrammar.Combination, in whole: String
  ) throws(ComponentError) -> [Double] {
    guard !arguments.isEmpty else { return found.prompts.map { _ in 1 } }
    guard arguments.count == found.prompts.count else {
      throw .outOfRange(
        component: "\(whole) of \(found.prompts.count)", option: "weights", value: "\(arguments.count)", allowed: "for all or none")
    }
    var weights: [Double] = []
    for argument in arguments {
      guard case .number(let weight) = argument, weight.isFinite else {
        throw .outOfRange(component: whole, option: "weights", value: "something else", allowed: "that are numbers")
      }
      weights.append(weight)
    }
    return weights
  }

  /// Nil where there is none.
  private mutating func texts(_ nodes: [CompelGrammar.Node]) throws(ComponentError) -> [WeightedText]? {
    runs = []
    try add(nodes, weight: 1)
    return runs.isEmpty ? nil : runs.map { WeightedText(Self.joined($0.texts), weight: $0.weight) }
  }

  private mutating func add(_ nodes: [CompelGrammar.Node], weight: Double) throws(ComponentError) {
    for node in nodes {
      switch node {
      case .text(let text):
        // No copy of the run is held while it grows.
        if let last = runs.indices.last, runs[last].weight == weight {
          runs[last].texts.append(text)
        } else {
          runs.append(([text], weight))
        }
      case .weighted(let own, let inside):
        guard (weight * own).isFinite else {
          throw .outOfRange(
            component: "The profile compel", option: "weights", value: "one beyond all numbers", allowed: "that are numbers")
        }
        try add(inside, weight: weight * own)
      case .lora(let name, let weight, let range):
        guard weight.isFinite else {
          throw .outOfRange(
            component: "withLora(\(name))", option: "a weight", value: "one beyond all numbers", allowed: "that is a number")
        }
        loras.append((CompelPrompt.Lora(name: name, weight: weight), range))
      case .swap: throw CompelPrompt.hasNo("cross-attention control, which .swap(…) asks for")
      }
    }
  }

  /// With spaces between them, and without backslashes before brackets and quotation marks: compel takes one away whenever it makes a text, which is twice for
  /// each, and once more for each that follows in the run.
  private static func joined(_ texts: [String]) -> String {
    texts.enumerated().map { index, text in
      text.utf8.contains(UInt8(ascii: "\\")) ? unescaped(text, times: 2 + min(texts.count - 1, texts.count - index)) : text
    }.joined(separator: " ")
  }

  private static func unescaped(_ text: String, times: Int) -> String {
    var result = String.UnicodeScalarView(), backslashes = 0
    func write(_ count: Int) { result.append(contentsOf: repeatElement("\\", count: max(0, count))) }
    for scalar in text.unicodeScalars {
      if scalar == "\\" {
        backslashes += 1
        continue
      }
      write("()\"".unicodeScalars.contains(scalar) ? backslashes - times : backslashes)
      result.append(scalar)
      backslashes = 0
    }
    write(backslashes)
    return String(result)
  }
}
