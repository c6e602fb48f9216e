import ArgumentParser
import LatentDiffusion

struct PromptCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prompt",
    abstract: "Shows how the marks in a prompt are read: weights, changes from step to step, parts that are added up.",
    discussion: """
      ldm prompt --profile webui "a (red:1.2) [apple|pear]"
      ldm prompt --profile webui --schedule --steps 20 --json "a [cat:dog:0.5]"
      ldm prompt --profile compel --composition '("a (cat)1.2", "a dog").blend(1, 0.5)'

      Example: ldm prompt --profile webui --schedule --steps 20 "a [cat:dog:0.5]"
      """)

  @Option(help: "Whose marks they are: diffusers has none, and all is plain text.")
  var profile = PromptProfile.diffusers

  @Flag(help: "Shows the texts in order, each with the last step that it is for, instead of the parts and their weights.")
  var schedule = false

  @Flag(
    help: """
      Shows the parts between AND and their weights instead. Of compel it shows what stands side by side (.and): the weight of each, the texts that are \
      blended in it with their shares, and the parts of each with their weights.
      """)
  var composition = false

  @Option(parsing: .unconditional, help: "Steps of the generation, for --schedule. Without it, 20.")
  var steps: Int?

  @Flag(
    help: """
      As JSON: a list of [text, weight], with --schedule of [step, text]. With --composition of compel it is a list of [blend, weight], where a blend is a \
      list of [parts, share].
      """)
  var json = false

  @Argument(help: "The prompt.")
  var text: String

  func validate() throws {
    guard !(schedule && composition) else { throw ValidationError("Give either --schedule or --composition.") }
    guard steps == nil || schedule else { throw ValidationError("--steps goes with --schedule.") }
    guard (1...100_000).contains(steps ?? 20) else { throw ValidationError("--steps must be from 1 to 100000.") }
  }

  /// A pair in a list of JSON.
  private struct Pair<First: Encodable, Second: Encodable>: Encodable {
    let (first, second): (First, Second)

    func encode(to encoder: any Encoder) throws {
      var values = encoder.unkeyedContainer()
      try values.encode(first)
      try values.encode(second)
    }
  }

  func run() throws {
    guard text.utf8.count <= GenerationRequest.maximumPromptBytes else {
      throw Failure("The prompt is too long; give at most \(GenerationRequest.maximumPromptBytes) bytes.")
    }
    if schedule {
      let texts = try profile.schedule(text, steps: steps ?? 20)
      if json { return try printJSON(texts.map { Pair(first: $0.lastStep, second: $0.text) }, isPretty: false) }
      for (step, text) in texts { print("up to step \(step): \(text)") }
    } else if composition, profile == .compel {
      let parts = try CompelPrompt(text).parts
      if json {
        func pairs(_ texts: [WeightedText]) -> [Pair<String, Double>] { texts.map { Pair(first: $0.text, second: $0.weight) } }
        return try printJSON(
          parts.map { Pair(first: $0.blend.map { Pair(first: pairs($0.texts), second: $0.share) }, second: $0.weight) }, isPretty: false)
      }
      for part in parts {
        print("\(part.weight)")
        for text in part.blend { print("  \(text.share) " + text.texts.map { "(\($0.text))\($0.weight)" }.joined(separator: " ")) }
      }
    } else {
      let parts = try composition ? profile.composition(text) : profile.weightedTexts(text)
      if json { return try printJSON(parts.map { Pair(first: $0.text, second: $0.weight) }, isPretty: false) }
      for part in parts { print("\(part.weight) \(part.text)") }
    }
  }
}
