import LatentDiffusionComponents
import Tensor

/// For models that draw from a picture alone, and read no prompts.
struct NoTexts: TextConditioner {
  /// What such a model does.
  let words: String

  /// - Throws: `ComponentError` for a prompt that is not empty.
  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    guard request.prompts.allSatisfy(\.text.isEmpty) else {
      throw ComponentError.unsupported(component: "This model \(words) and", option: "prompt")
    }
    return Conditioning(rows: request.prompts.count)
  }
}
