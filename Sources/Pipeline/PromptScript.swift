import LatentDiffusionComponents
import Tensor

/// What a prompt says in the steps of a generation: parts that are predicted each by itself and added up, each of which may change from step to step.
struct PromptScript: Sendable {
  /// One of those parts.
  struct Part: Sendable {
    /// How much it counts.
    let weight: Float
    /// Steps of the webui's marks are counted from 1, and its loop counts from 0: so what is for the first step is for two.
    let texts: Timeline<Prompt>
  }
  /// At least one.
  let parts: [Part]

  private static let mostParts = 100
  /// Of all parts together, which all are encoded.
  private static let mostTexts = 1000

  /// - Parameters:
  ///   - steps: of the generation, of which those that evaluate the predictor twice count twice.
  ///   - isNegative: whether the prompt is one to stay away from, in which `AND` is a word.
  /// - Throws: `ComponentError.outOfRange` for more than 100 parts or 1000 texts in all, and what `PromptProfile.schedule` throws.
  init(_ prompt: Prompt, steps: Int, isNegative: Bool) throws(ComponentError) {
    let texts = isNegative ? [WeightedText(prompt.text)] : prompt.profile.composition(prompt.text)
    guard texts.count <= Self.mostParts else {
      throw .outOfRange(component: "A prompt", option: "parts between AND", value: "\(texts.count)", allowed: "from 1 to \(Self.mostParts)")
    }
    var parts: [Part] = []
    for part in texts {
      let said = try prompt.profile.schedule(part.text, steps: steps).map { step, text in
        var own = prompt
        own.text = text
        return (last: step, value: own)
      }
      parts.append(Part(weight: Float(part.weight), texts: Timeline(said)))
    }
    let said = parts.reduce(0) { $0 + $1.texts.values.count }
    guard said <= Self.mostTexts else {
      throw .outOfRange(component: "A prompt", option: "texts in all its parts", value: "\(said)", allowed: "up to \(Self.mostTexts)")
    }
    self.parts = parts
  }

  /// Whether there is something to add up.
  var isComposed: Bool { parts.count > 1 || parts[0].weight != 1 }

  /// The prompt, where it is one and the same in all steps.
  var only: Prompt? { isComposed || parts[0].texts.values.count > 1 ? nil : parts[0].texts.values[0] }

  /// Each once for each part.
  var prompts: [Prompt] { parts.flatMap(\.texts.values) }

  /// The part of a number, or the last one.
  func part(_ number: Int) -> Part { parts[min(number, parts.count - 1)] }
}

/// A part of what a text of the guidance says.
struct SpokenPart: Sendable {
  /// How much it counts for each picture.
  let weights: [Float]
  /// With a row for each picture.
  let told: Timeline<Conditioning>

  init(weights: [Float], told: Timeline<Conditioning>) { (self.weights, self.told) = (weights, told) }

  /// One that is the same in all steps.
  init(_ conditioning: Conditioning) {
    self.init(weights: Array(repeating: 1, count: conditioning.rows), told: Timeline(conditioning))
  }
}

extension GenerationRequest {
  /// Where nobody gave any, an empty one, which other programs read as they read the prompt.
  var negativeOrEmpty: [Prompt] {
    guard negativePrompts.isEmpty else { return negativePrompts }
    let profile = prompts.first?.profile ?? .diffusers
    return [Prompt("", skippedLayers: profile == .diffusers ? 0 : prompts.first?.skippedLayers ?? 0, profile: profile)]
  }
}

extension Plan {
  /// The prompt of a clip or a walk, which is one and the same in all steps.
  /// - Throws: `ComponentError.unsupported` where it is not.
  func only(_ prompt: Prompt, isNegative: Bool = false, of what: String) throws(ComponentError) -> Prompt {
    guard let only = try PromptScript(prompt, steps: promptSteps, isNegative: isNegative).only else {
      throw .unsupported(component: what, option: "prompts that change from step to step or are added up (AND)")
    }
    return only
  }

  /// What the conditioner makes of prompts that are drawn one after the other: a row for each, all of as many tokens as the longest. The webui reads each by
  /// itself.
  func conditioningOfEach(_ prompts: [Prompt], in context: ExecutionContext) throws -> Conditioning {
    guard prompts.contains(where: { $0.profile == .webui }) else { return try conditioning(of: prompts, in: context) }
    let read = try prompts.map { try conditioning(of: [$0], in: context) }
    return try .concatenated(Conditioning.ofOneLength(read, profile: prompts[0].profile))
  }

  /// What the conditioner makes of scripts: parts with a row for each picture.
  func spoken(_ scripts: [PromptScript], isNegative: Bool, in context: ExecutionContext) throws -> [SpokenPart] {
    let each = count / max(scripts.count, 1), prompts = scripts.compactMap(\.only)
    // Plain prompts are one batch. The webui reads each prompt, with all that it changes to, by itself.
    if prompts.count == scripts.count, prompts.count == 1 || !prompts.contains(where: { $0.profile == .webui }) {
      return [SpokenPart(try conditioning(of: prompts, isNegative: isNegative, in: context).repeated(each))]
    }
    let profile = scripts[0].prompts[0].profile
    return try (0..<(scripts.map(\.parts.count).max() ?? 0)).map { number in
      let rows = try scripts.map { script in
        let texts = script.part(number).texts, read = try conditioning(of: texts.inOrder, isNegative: isNegative, in: context)
        return texts.map { _, place in read.rows(place..<place + 1) }
      }
      // A picture with fewer parts than others sees its last one again, which counts nothing.
      let weights = scripts.flatMap { Array(repeating: number < $0.parts.count ? $0.part(number).weight : 0, count: each) }
      return SpokenPart(
        weights: weights, told: try .joined(rows) { try .concatenated(Conditioning.ofOneLength($0, profile: profile)).repeated(each) })
    }
  }
}
