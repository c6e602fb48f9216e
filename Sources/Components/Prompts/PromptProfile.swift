/// Whose conventions the marks in a prompt follow.
public enum PromptProfile: String, Sendable, CaseIterable, Codable {
  /// A prompt is plain text.
  case diffusers
  /// stable-diffusion-webui's: weights that multiply, `BREAK`, prompts that change from step to step, and `AND`.
  case webui
  /// ComfyUI's: weights, of which a number takes the place of the one outside.
  case comfy
  /// compel's, which InvokeAI and weighted prompts of diffusers have: weights that multiply, blends, and prompts side by side.
  case compel

  /// The parts of a prompt with their weights, in order.
  /// - Throws: what `CompelPrompt` throws with the profile `compel`, and nothing with the others.
  public func weightedTexts(_ prompt: String) throws(ComponentError) -> [WeightedText] {
    switch self {
    case .diffusers: [WeightedText(prompt)]
    case .webui: WebUIEmphasis.parse(prompt)
    case .comfy: ComfyEmphasis.parse(prompt)
    case .compel: try CompelPrompt(prompt).texts
    }
  }

  /// What a prompt says in each step, before weights are looked at: texts in order, each with the last step that it is for, counted from 1.
  ///
  /// - Parameter steps: of the generation, at least 1. A text that changes at a part of them, `[a:b:0.5]`, depends on it.
  /// - Throws: `ComponentError.outOfRange` for a prompt that changes more than 1000 times, or whose texts have more than 64 MB together; with the profile
  ///   `compel` what `CompelPrompt` throws.
  public func schedule(_ prompt: String, steps: Int) throws(ComponentError) -> [(lastStep: Int, text: String)] {
    switch self {
    case .diffusers, .comfy: [(steps, prompt)]
    case .webui: try PromptSchedule(prompt).texts(steps: max(steps, 1))
    case .compel: [(steps, try CompelPrompt.checked(prompt))]
    }
  }

  /// How many of a text encoder's last layers a number leaves out that the program calls clip skip.
  ///
  /// - Parameters:
  ///   - clipSkip: diffusers and compel's users count layers that are left out, from 0; the webui the last one that is not, from 1 at the end; ComfyUI the
  ///     same with a minus sign. Nothing is skipped by 0.
  ///   - isXL: whether it is for a model of the kind of SDXL, whose text encoders always do without their last layer. The webui skips no more there, and
  ///     ComfyUI's -2 is the usual one.
  /// - Throws: `ComponentError.outOfRange` for a number that the program does not count with.
  public func skippedLayers(clipSkip: Int, isXL: Bool = false) throws(ComponentError) -> Int {
    let skipped =
      switch self {
      case .diffusers, .compel: clipSkip
      case .webui: clipSkip < 0 ? clipSkip : isXL ? 0 : max(0, clipSkip - 1)
      case .comfy: clipSkip == 0 ? 0 : 0 - max(clipSkip, -2000) - (isXL ? 2 : 1)
      }
    guard (0...1000).contains(skipped) else {
      throw .outOfRange(
        component: "The profile \(rawValue)", option: "a clip skip", value: "\(clipSkip)",
        allowed: self == .comfy ? "from -1000 to \(isXL ? -2 : -1)" : "from 0 to 1000")
    }
    return skipped
  }

  /// The prompts that are predicted each by itself and added up, before anything else is looked at. compel joins the states of its texts instead: see
  /// `CompelPrompt`.
  public func composition(_ prompt: String) -> [WeightedText] {
    switch self {
    case .diffusers, .comfy, .compel: [WeightedText(prompt)]
    case .webui: PromptComposition.parse(prompt)
    }
  }
}
