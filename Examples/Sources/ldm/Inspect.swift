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

      Example: ldm inspect models/sd15.safetensors
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

  @Option(parsing: .unconditionalSingleValue, help: "With --memory-limit: a ControlNet that steers, as for txt2img. Several can be given.")
  var controlnet: [String] = []

  @Option(
    name: .customLong("t2i-adapter"), parsing: .unconditionalSingleValue,
    help: "With --memory-limit: a T2I-Adapter that steers. Several can be given.")
  var adapters: [String] = []

  @Option(
    name: .customLong("ip-adapter"), parsing: .unconditionalSingleValue,
    help: "With --memory-limit: an IP-Adapter. Several can be given.")
  var ipAdapters: [String] = []

  @Option(parsing: .unconditional, help: "The image encoder of the IP-Adapters. Without it, image_encoder beside the first one.")
  var imageEncoder: String?

  func validate() throws {
    guard (1...1000).contains(count) else { throw ValidationError("--count must be from 1 to 1000.") }
    guard width ?? 1 > 0, height ?? 1 > 0 else { throw ValidationError("--width and --height must be more than 0.") }
    guard memory.memoryLimit != nil || width == nil && height == nil && count == 1 else {
      throw ValidationError("--width, --height and --count go with --memory-limit.")
    }
    guard memory.memoryLimit != nil || (controlnet + adapters + ipAdapters).isEmpty else {
      throw ValidationError("--controlnet, --t2i-adapter and --ip-adapter go with --memory-limit.")
    }
    guard imageEncoder == nil || !ipAdapters.isEmpty else {
      throw ValidationError("--image-encoder is for an IP-Adapter; name one with --ip-adapter.")
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
    let usual = try MemoryPlan.usualSize(of: files.base, replacing: files.parts).size
    guard let width = width ?? usual?.width, let height = height ?? usual?.height else { throw GenerationError.noSize }
    let company = ModelCompany(
      controls: (controlnet + adapters).map { URL(filePath: $0) },
      ipAdapters: ImagePromptOptions.files(ipAdapters, encoder: imageEncoder, pictures: 1))
    let plan = try MemoryPlan(
      for: files.base, replacing: files.parts, beside: company,
      GenerationExtent(size: PixelSize(width: width, height: height), images: count), limit: memory.memoryLimit)
    print("\(plan), \(try await plan.time(steps: 20, in: ExecutionContext())).")
  }
}
