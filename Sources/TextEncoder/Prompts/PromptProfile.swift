/// Whose conventions the marks in a prompt follow.
public enum PromptProfile: String, Sendable, CaseIterable {
  /// A prompt is plain text.
  case diffusers
  /// stable-diffusion-webui's: weights that multiply, `BREAK`, prompts that change from step to step, and `AND`.
  case webui
  /// ComfyUI's: weights, of which a number takes the place of the one outside.
  case comfy

  /// The parts of a prompt with their weights, in order.
  public func weightedTexts(_ prompt: String) -> [WeightedText] {
    switch self {
    case .diffusers: [WeightedText(prompt)]
    case .webui: WebUIEmphasis.parse(prompt)
    case .comfy: ComfyEmphasis.parse(prompt)
    }
  }

  /// What a prompt says in each step, before weights are looked at: texts in order, each with the last step that it is for, counted from 1.
  ///
  /// - Parameter steps: of the generation, at least 1. A text that changes at a part of them, `[a:b:0.5]`, depends on it.
  public func schedule(_ prompt: String, steps: Int) -> [(lastStep: Int, text: String)] {
    switch self {
    case .diffusers, .comfy: [(steps, prompt)]
    case .webui: PromptSchedule(prompt).texts(steps: max(steps, 1))
    }
  }

  /// The prompts that are predicted each by itself and added up, before anything else is looked at.
  public func composition(_ prompt: String) -> [WeightedText] {
    switch self {
    case .diffusers, .comfy: [WeightedText(prompt)]
    case .webui: PromptComposition.parse(prompt)
    }
  }
}
