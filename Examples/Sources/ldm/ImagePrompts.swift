import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

/// A file and how much it counts: `PATH=0.6`, or `PATH` alone for 1.
struct ScaledFile: ExpressibleByArgument {
  let path: String
  let scale: Double

  init?(argument: String) {
    let cut = argument.lastIndex(of: "=")
    let scale = cut.flatMap { Double(argument[argument.index(after: $0)...]) }
    // What is no number belongs to the path.
    path = scale == nil ? argument : cut.map { String(argument[..<$0]) } ?? argument
    self.scale = scale ?? 1
    guard !path.isEmpty, self.scale.isFinite else { return nil }
  }
}

/// Pictures as prompts, through IP-Adapters.
struct ImagePromptOptions: ParsableArguments {
  @Option(
    name: .customLong("ip-adapter"), parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      """
      An IP-Adapter, plain or Plus: a .safetensors file. It counts as much beside the prompt as the number says; without one, 1. It can be given several \
      times.
      """,
      valueName: "path=scale"))
  var ipAdapters: [ScaledFile] = []

  @Option(
    name: .customLong("ip-adapter-image"), parsing: .unconditionalSingleValue,
    help: "A picture for the IP-Adapter: PNG, JPEG or WebP. One adapter takes all pictures, several take one each, in their order.")
  var images: [String] = []

  @Option(
    parsing: .unconditional, help: "The folder of the image encoder of the IP-Adapters. Without it, image_encoder beside the first one.")
  var imageEncoder: String?

  var isEmpty: Bool { ipAdapters.isEmpty && images.isEmpty && imageEncoder == nil }

  func validate() throws {
    guard ipAdapters.isEmpty else {
      guard !images.isEmpty else { throw ValidationError("--ip-adapter needs a picture; give it with --ip-adapter-image.") }
      guard ipAdapters.count == 1 || ipAdapters.count == images.count else {
        throw ValidationError("\(images.count) pictures do not fit \(ipAdapters.count) IP-Adapters; give one for each.")
      }
      return
    }
    guard images.isEmpty else { throw ValidationError("--ip-adapter-image is for an IP-Adapter; name one with --ip-adapter.") }
    guard imageEncoder == nil else { throw ValidationError("--image-encoder is for an IP-Adapter; name one with --ip-adapter.") }
  }

  func prompts() throws -> [ImagePrompt] {
    let pictures = try images.map { try picture($0).tensor() }
    return ipAdapters.enumerated().map { ImagePrompt(ipAdapters.count == 1 ? pictures : [pictures[$0]], scale: $1.scale) }
  }

  /// The adapters' files, and their image encoder's; nil without any.
  var files: ModelCompany.IPAdapters? {
    Self.files(ipAdapters.map(\.path), encoder: imageEncoder, pictures: ipAdapters.count == 1 ? images.count : 1)
  }

  /// - Parameter encoder: nil: the folder `image_encoder` beside the first adapter.
  static func files(_ adapters: [String], encoder: String?, pictures: Int) -> ModelCompany.IPAdapters? {
    let urls = adapters.map { URL(filePath: $0) }
    return urls.first.map { first in
      let beside = first.deletingLastPathComponent().appending(path: "image_encoder")
      return ModelCompany.IPAdapters(urls, encoder: encoder.map { URL(filePath: $0) } ?? beside, pictures: pictures)
    }
  }

  /// Adds the adapters to a model.
  func apply(to model: inout StableDiffusion, plan: MemoryPlan?, in context: ExecutionContext) async throws {
    guard let files else { return }
    let (before, known) = (model, model.warnings.count)
    model = try await context.run { context in
      let encoder = try CLIPImageEncoder.load(from: files.encoder, plan: plan, in: context)
      return try files.files.reduce(before) { try $0.adding(ipAdapter: $1, imageEncoder: encoder, in: context) }
    }
    for warning in model.warnings.dropFirst(known) { Progress.warn("\(warning)") }
  }

  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] {
    ipAdapters.map { .init("IP-Adapter", "\(URL(filePath: $0.path).deletingPathExtension().lastPathComponent) \($0.scale)") }
  }
}

struct Variation: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "variation", abstract: "Draws variations of a picture, with a model made for it (unCLIP, image variations).",
    discussion: """
      The picture is described to the model by its image encoder: only its content comes back. unCLIP takes a prompt, too.

      Example: ldm variation --model models/sd-image-variations --image photo.jpg -o another.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "The picture: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "How much noise is put on the description, for unCLIP, from 0 to 999: more of it varies more.")
  var noiseLevel: Int?

  func run() async throws {
    try await options.run(
      reading: [image], imagePrompts: [ImagePrompt([picture(image).tensor()], noiseLevel: noiseLevel)], needsPrompt: false, TextToImage())
  }
}
