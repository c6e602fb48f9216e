import LatentDiffusionComponents
import Tensor

/// BERT's tokenizer and the text encoder of the first latent diffusion models. Source: diffusers' `LDMTextToImagePipeline`.
public struct LDMBertConditioner: TextConditioner {
  /// Nil: every text is all padding, as a plan counts.
  public let tokenizer: BertTokenizer?
  /// Turns tokens into states.
  public let model: LDMBertModel

  /// A tokenizer and the model whose vocabulary it has; tokens that the model lacks are an error where a prompt has them.
  public init(tokenizer: BertTokenizer?, model: LDMBertModel) { (self.tokenizer, self.model) = (tokenizer, model) }

  /// Tokens of every text: what the reference's pipeline says, whatever the tokenizer's own length is.
  private var length: Int { min(77, model.positions) }

  public func truncation(of prompt: Prompt) -> PromptTruncation? {
    tokenizer?.truncation(of: prompt.text, length: length).map {
      PromptTruncation(prompt: prompt, dropped: $0.dropped, tokens: $0.tokens, limit: length - 2)
    }
  }

  /// - Throws: `ComponentError` for a prompt that skips layers, `CLIPTextError`, `CancellationError`.
  public func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    guard request.prompts.allSatisfy({ $0.skippedLayers == 0 }) else {
      throw ComponentError.unsupported(component: "This text encoder", option: "layers to skip")
    }
    let ids = request.prompts.map { tokenizer?.encodePadded($0.text, length: length) ?? Array(repeating: 0, count: length) }
    return Conditioning(hiddenStates: try model(ids, in: context))
  }
}
