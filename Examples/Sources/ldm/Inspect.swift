import ArgumentParser
import Foundation
import LatentDiffusion

struct Inspect: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Prints what a model is, as JSON: family, components, parameters, types, sizes, unused and missing keys.",
    discussion:
      """
      With --memory-limit it says instead how a picture would be made within it. The exit status is 0 where there is a model at all; \
      what is wrong with a component stands in its "problem".
      """
  )

  @Argument(help: "A folder in diffusers' layout, or a .safetensors or .ckpt file.")
  var path: String

  @OptionGroup var parts: PartOptions
  @OptionGroup var memory: MemoryOptions

  @Option(parsing: .unconditional, help: "With --memory-limit: pixels of the picture. Without it, what the model was made for.")
  var width: Int?

  @Option(parsing: .unconditional, help: "With --memory-limit: pixels of the picture. Without it, what the model was made for.")
  var height: Int?

  @Option(parsing: .unconditional, help: "With --memory-limit: pictures in the same passes.")
  var count = 1

  func validate() throws {
    guard (1...1000).contains(count) else { throw ValidationError("--count must be from 1 to 1000.") }
    guard width ?? 1 > 0, height ?? 1 > 0 else { throw ValidationError("--width and --height must be more than 0.") }
    guard memory.memoryLimit != nil || width == nil && height == nil && count == 1 else {
      throw ValidationError("--width, --height and --count go with --memory-limit.")
    }
  }

  func run() async throws {
    if memory.memoryLimit != nil { return try await printPlan() }
    let files = try parts.files(of: path)
    try printJSON(
      try await ExecutionContext().run { try StableDiffusion.inspect(files.base, replacing: files.parts, in: $0) }, isPretty: true)
  }

  /// Prints how guided pictures would keep within the memory limit.
  private func printPlan() async throws {
    let files = try parts.files(of: path)
    var extent =
      try width.flatMap { width in height.map { PixelSize(width: width, height: $0) } }.map { GenerationExtent(size: $0) }
      ?? MemoryPlan(for: files.base, replacing: files.parts).extent
    extent.size = PixelSize(width: width ?? extent.size.width, height: height ?? extent.size.height)
    extent.images = count
    let plan = try MemoryPlan(for: files.base, replacing: files.parts, extent, limit: memory.memoryLimit)
    print("\(plan), \(try await plan.time(steps: 20, in: ExecutionContext())).")
  }
}
