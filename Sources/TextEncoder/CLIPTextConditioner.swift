import LatentDiffusionComponents
import Tensor

/// A tokenizer and a text tower: they turn prompts into the conditioning of the U-Net.
public struct CLIPTextConditioner: TextConditioner {
  /// Cuts prompts into tokens, and defines how many these are.
  public let tokenizer: CLIPTokenizer
  /// Turns tokens into states.
  public let model: CLIPTextModel
  /// Whether states are those after the tower's last normalisation.
  let isNormalized: Bool

  /// - Parameters:
  ///   - tokenizer: cuts prompts into tokens.
  ///   - model: turns tokens into states.
  ///   - isNormalized: whether states are those after the tower's last normalisation, which all models but the latent upscaler were trained with.
  /// - Throws: `CLIPTextError` if the tokenizer's texts are longer than the tower's, or have tokens that the tower lacks.
  public init(tokenizer: CLIPTokenizer, model: CLIPTextModel, isNormalized: Bool = true) throws {
    guard (1...model.configuration.positions).contains(tokenizer.maximumLength) else {
      throw CLIPTextError.wrongLength(found: tokenizer.maximumLength, maximum: model.configuration.positions)
    }
    // Every text has these tokens. Other tokens that the tower lacks are an error only if a prompt has them.
    let marks = [tokenizer.bosTokenID, tokenizer.eosTokenID, tokenizer.padTokenID]
    if let id = marks.first(where: { !(0..<model.configuration.vocabulary).contains($0) }) {
      throw CLIPTextError.tokenOutOfRange(id: id, vocabulary: model.configuration.vocabulary)
    }
    self.tokenizer = tokenizer
    self.model = model
    self.isNormalized = isNormalized
  }

  public func truncation(of prompt: Prompt) -> PromptTruncation? { tokenizer.truncation(of: prompt, prompt.text) }

  public var readsMarks: Bool { true }

  public func length(of prompt: Prompt) -> Int? {
    // What cannot be read is an error where it is.
    let tokens = try? tokenizer.tokens(of: prompt.text, profile: prompt.profile)
    return (tokens?.places.count ?? 1) * tokenizer.maximumLength
  }

  /// - Throws: `CLIPTextError`, `CancellationError`, `ComponentError` for weights whose states are no numbers and for what `CompelPrompt` does not read.
  public func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let least = request.places(of: tokenizer.maximumLength, by: self)
    // Texts that end at different layers cannot go through the tower together.
    return try .byDepth(request.prompts, in: context) { prompts, skippedLayers in
      if let profile = prompts.first?.profile, profile != .diffusers {
        return try model.weighted(
          prompts.map { try tokenizer.tokens(of: $0.text, profile: profile) },
          chunks: prompts.map { _ in profile == .compel ? least : 1 }, profile: profile, by: tokenizer, skippedLayers: skippedLayers,
          states: { isNormalized ? $0.lastHiddenState : $0.unnormalized }, in: context)
      }
      let output = try model(prompts.map { tokenizer.encodePadded($0.text) }, skippedLayers: skippedLayers, in: context)
      return Conditioning(
        hiddenStates: isNormalized ? output.lastHiddenState : output.unnormalized, pooled: output.textEmbeds ?? output.pooled)
    }
  }
}

extension ConditioningRequest {
  /// The places of so many tokens that each text of compel has at least: as many as the longest of the generation.
  func places(of length: Int, by conditioner: some TextConditioner) -> Int {
    max(self.length ?? 0, prompts.filter { $0.profile == .compel }.compactMap(conditioner.length(of:)).max() ?? 0) / max(length, 1)
  }
}

extension CLIPTokenizer {
  /// - Parameter text: the one of the prompt's that this tokenizer reads.
  func truncation(of prompt: Prompt, _ text: String) -> PromptTruncation? {
    guard prompt.profile != .diffusers else { return plainTruncation(of: prompt, text) }
    guard let tokens = try? tokens(of: text, profile: prompt.profile), !tokens.dropped.isEmpty else { return nil }
    return PromptTruncation(prompt: prompt, dropped: decode(tokens.dropped), tokens: tokens.count, limit: tokens.kept)
  }

  /// The same of a text without marks.
  func plainTruncation(of prompt: Prompt, _ text: String) -> PromptTruncation? {
    truncation(of: text).map { PromptTruncation(prompt: prompt, dropped: $0.dropped, tokens: $0.tokens, limit: $0.limit) }
  }
}
