import ArgumentParser
import Foundation
import LatentDiffusion

struct Inspect: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Prints what a model is, as JSON: family, components, parameters, types, sizes, unused and missing keys.",
    discussion:
      "With --memory-limit it says instead how a picture would be made within it. The exit status is 0 where there is a model at all; what is wrong with a component stands in its \"problem\"."
  )

  @Argument(help: "A folder in diffusers' layout or a .safetensors file.")
  var path: String

  @OptionGroup var memory: MemoryOptions

  func run() async throws {
    if memory.memoryLimit != nil { return try printPlan() }
    let url = URL(filePath: path)
    try printJSON(try await ExecutionContext().run { try StableDiffusion.inspect(url, in: $0) }, isPretty: true)
  }

  /// With --memory-limit: how one guided picture of the model's own size would keep within it.
  private func printPlan() throws {
    let plan = try MemoryPlan(for: URL(filePath: path), limit: memory.memoryLimit)
    print("\(plan).")
  }
}
