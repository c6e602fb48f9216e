/// A text to be drawn (or avoided). A type of its own, so that weights on words have a place.
public struct Prompt: Hashable, Sendable, ExpressibleByStringLiteral {
  /// In any language, as a person wrote it.
  public var text: String
  /// How many of the text encoder's last layers this text does without (`clip_skip`).
  public var skippedLayers: Int
  /// Another text for the second text encoder of a model that has two (`prompt_2`). Nil or empty: the same text.
  public var second: String?
  /// Whose conventions the marks in the texts follow. Without any, a text is plain.
  public var profile: PromptProfile

  /// A prompt of this text; it may be empty.
  public init(_ text: String, skippedLayers: Int = 0, second: String? = nil, profile: PromptProfile = .diffusers) {
    (self.text, self.skippedLayers, self.second, self.profile) = (text, skippedLayers, second, profile)
  }

  public init(stringLiteral text: String) { self.init(text) }
}

/// What a text encoder does not read of a prompt, since it is longer than the texts that it was trained on.
public struct PromptTruncation: Sendable, Hashable, CustomStringConvertible {
  /// The whole prompt.
  public let prompt: Prompt
  /// What is left out, as the tokens say it.
  public let dropped: String
  /// Tokens of the whole prompt, without the begin and the end.
  public let tokens: Int
  /// Tokens that are read.
  public let limit: Int

  /// - Parameters:
  ///   - prompt: the whole of it.
  ///   - dropped: what is left out.
  ///   - tokens: of the whole prompt.
  ///   - limit: tokens that are read.
  public init(prompt: Prompt, dropped: String, tokens: Int, limit: Int) {
    (self.prompt, self.dropped, self.tokens, self.limit) = (prompt, dropped, tokens, limit)
  }

  public var description: String {
    "The text encoder reads \(limit) tokens of a prompt, and this one has \(tokens); left out is: \(dropped)"
  }
}
