import Components
import Tensor

/// A tokenizer and a text tower: words to what guides the U-Net.
public struct CLIPTextConditioner: TextConditioner {
  /// What cuts prompts into tokens, and says how many.
  public let tokenizer: CLIPTokenizer
  /// What turns tokens into states.
  public let model: CLIPTextModel
  /// How many of the tower's last layers to leave out (`clip_skip`).
  public var skippedLayers = 0

  /// - Throws: `CLIPTextError.wrongLength` where the tokenizer's texts are longer than the tower's.
  public init(tokenizer: CLIPTokenizer, model: CLIPTextModel) throws {
    guard (1...model.shape.positions).contains(tokenizer.maximumLength) else {
      throw CLIPTextError.wrongLength(found: tokenizer.maximumLength, maximum: model.shape.positions)
    }
    self.tokenizer = tokenizer
    self.model = model
  }

  /// - Throws: `CLIPTextError`, `CancellationError`.
  public func condition(_ prompts: [Prompt], in context: ExecutionContext) throws -> Conditioning {
    let output = try model(prompts.map { tokenizer.encodePadded($0.text) }, skippedLayers: skippedLayers, in: context)
    return Conditioning(hiddenStates: output.lastHiddenState, pooled: output.textEmbeds ?? output.pooled)
  }
}
