import ArgumentParser
import LatentDiffusion

struct PromptCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prompt",
    abstract: "Shows how the marks in a prompt are read: weights, changes from step to step, parts that are added up.",
    discussion: """
      ldm prompt --profile webui "a (red:1.2) [apple|pear]"
      ldm prompt --profile webui --schedule --steps 20 --json "a [cat:dog:0.5]"
      """)

  @Option(help: "Whose marks they are: diffusers has none, and all is plain text.")
  var profile = PromptProfile.diffusers

  @Flag(help: "Shows the texts in order, each with the last step that it is for, instead of the parts and their weights.")
  var schedule = false

  @Flag(help: "Shows the parts between AND and their weights instead.")
  var composition = false

  @Option(parsing: .unconditional, help: "Steps of the generation, for --schedule. Without it, 20.")
  var steps: Int?

  @Flag(help: "As JSON: a list of [text, weight], with --schedule of [step, text].")
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
    } else {
      let parts = composition ? profile.composition(text) : profile.weightedTexts(text)
      if json { return try printJSON(parts.map { Pair(first: $0.text, second: $0.weight) }, isPretty: false) }
      for part in parts { print("\(part.weight) \(part.text)") }
    }
  }
}
