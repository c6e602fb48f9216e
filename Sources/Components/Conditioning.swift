import Tensor

/// What a prediction is guided by: the encoded text, and whatever else a model takes.
public struct Conditioning: Sendable {
  /// `[N, L, D]`: a state for each token.
  public var hiddenStates: Tensor
  /// `[N, P]`: a state for the whole text, where the encoder gives one.
  public var pooled: Tensor?
  /// The guidance scale minus one, for networks that take it as an input (LCM's `w`).
  public var guidance: Float?
  /// Further inputs by their names in diffusers (`time_ids`), for models that have them; each has N rows.
  public var additional: [String: Tensor]

  /// - Precondition: all tensors have the same number of rows, N.
  public init(hiddenStates: Tensor, pooled: Tensor? = nil, guidance: Float? = nil, additional: [String: Tensor] = [:]) {
    self.hiddenStates = hiddenStates
    self.pooled = pooled
    self.guidance = guidance
    self.additional = additional
  }

  /// The rows of several conditionings in one, for one pass over all of them.
  public static func concatenated(_ parts: [Conditioning]) -> Conditioning {
    func joined(_ tensors: [Tensor?]) -> Tensor? {
      let present = tensors.compactMap { $0 }
      return present.count == parts.count ? Tensor.concatenated(present, axis: 0) : nil
    }
    let names = Set(parts.flatMap(\.additional.keys))
    return Conditioning(
      hiddenStates: Tensor.concatenated(parts.map(\.hiddenStates), axis: 0), pooled: joined(parts.map(\.pooled)),
      guidance: parts.first?.guidance,
      additional: names.reduce(into: [:]) { all, name in all[name] = joined(parts.map { $0.additional[name] }) })
  }

  /// Each row `times` times, one after the other, for several pictures of a prompt.
  public func repeated(_ times: Int) -> Conditioning {
    func spread(_ tensor: Tensor) -> Tensor {
      Tensor.concatenated((0..<tensor.shape[0]).map { tensor.rows($0..<$0 + 1).repeated(times) }, axis: 0)
    }
    guard times != 1 else { return self }
    return Conditioning(
      hiddenStates: spread(hiddenStates), pooled: pooled.map(spread), guidance: guidance, additional: additional.mapValues(spread))
  }
}

/// A text to be drawn (or avoided). A type of its own, so that weights on words have a place.
public struct Prompt: Hashable, Sendable, ExpressibleByStringLiteral {
  /// In any language, as a person wrote it.
  public var text: String
  /// How many of the text encoder's last layers this text does without (`clip_skip`).
  public var skippedLayers: Int

  /// A prompt of this text; it may be empty.
  public init(_ text: String, skippedLayers: Int = 0) {
    self.text = text
    self.skippedLayers = skippedLayers
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

/// Turns prompts into what guides the prediction.
public protocol TextConditioner: Sendable {
  /// - Returns: a row for each prompt.
  /// - Throws: `CancellationError`, and what the conditioner documents.
  func condition(_ prompts: [Prompt], in context: ExecutionContext) throws -> Conditioning

  /// What `condition` leaves out of a prompt; nil where it reads all, and without an implementation.
  func truncation(of prompt: Prompt) -> PromptTruncation?
}

extension TextConditioner {
  public func truncation(of prompt: Prompt) -> PromptTruncation? { nil }
}
