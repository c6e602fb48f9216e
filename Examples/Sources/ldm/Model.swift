import ArgumentParser
import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

extension WeightForm: @retroactive ExpressibleByArgument {}

/// Components from other files.
struct PartOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      An autoencoder in the place of the model's: the folder of one, a .safetensors file with one (also TAESD's), or a whole model, of which it is taken.
      """)
  var vae: String?

  @Option(
    parsing: .unconditional,
    help: "The encoder of a tiny autoencoder whose decoder --vae is: TAESD's two files. Without it, such a decoder cannot take pictures.")
  var vaeEncoder: String?

  @Option(
    parsing: .unconditional, help: "A U-Net in the place of the model's, as --vae. With --vae and --text-encoder it needs no --model.")
  var unet: String?

  @Option(parsing: .unconditional, help: "A text encoder in the place of the model's, as --vae.")
  var textEncoder: String?

  @Option(
    name: .customLong("text-encoder-2"), parsing: .unconditional, help: "A second text encoder in the place of the model's, as --vae.")
  var secondTextEncoder: String?

  @Option(
    parsing: .unconditional,
    help: """
      Motion modules (AnimateDiff), with which a Stable Diffusion 1.5 or XL draws clips: the folder of a MotionAdapter, or a file of the original code.
      """)
  var motionModule: String?

  fileprivate var given: [(component: String, label: String, path: String?)] {
    [
      ("unet", "U-Net", unet), ("vae", "VAE", vae), ("vae_encoder", "VAE encoder", vaeEncoder),
      ("text_encoder", "Text encoder", textEncoder),
      ("text_encoder_2", "Text encoder 2", secondTextEncoder), ("motion_adapter", "Motion module", motionModule),
    ]
  }

  /// A U-Net, an autoencoder and a text encoder leave nothing for a model to say.
  fileprivate var isWhole: Bool { unet != nil && vae != nil && textEncoder != nil }

  /// The base that a model's path stands for, and what takes its components' places.
  func files(of model: String?) throws -> (base: URL, parts: [String: URL]) {
    var parts: [String: URL] = [:]
    for (component, _, path) in given { parts[component] = path.map { URL(filePath: $0) } }
    if model == nil, isWhole, let base = parts.removeValue(forKey: "unet") { return (base, parts) }
    return (try model.map { URL(filePath: $0) } ?? EmojiModel.folder(), parts)
  }

  /// The autoencoder alone: what a second model of the same latent space takes of these.
  var autoencoderAlone: PartOptions {
    var result = self
    (result.unet, result.textEncoder, result.secondTextEncoder, result.motionModule) = (nil, nil, nil, nil)
    return result
  }

  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] {
    given.compactMap { _, label, path in path.map { .init(label, URL(filePath: $0).deletingPathExtension().lastPathComponent) } }
  }
}

extension PartOptions {
  /// An autoencoder alone, for commands that have other options for the rest. Every property needs a value: none has been read from a command line.
  init(autoencoder: String?) {
    self.init()
    (vae, vaeEncoder, unet) = (autoencoder, nil, nil)
    (textEncoder, secondTextEncoder, motionModule) = (nil, nil, nil)
  }
}

struct ModelOptions: ParsableArguments {
  @Option(
    parsing: .unconditional, help: "A folder in diffusers' layout, or a .safetensors or .ckpt file. Without it, the embedded model is used."
  )
  var model: String?

  @OptionGroup var parts: PartOptions

  @Option(
    parsing: .unconditional,
    help: """
      The form in which weights are held: \(WeightForm.allCases.map(\.rawValue).joined(separator: ", ")). Without it, as the files have them, and small \
      parts of a model as f32.
      """)
  var weights: WeightForm?

  @Option(parsing: .unconditional, help: "Threads to compute on. Without it, one for each processor.")
  var threads: Int?

  func validate() throws {
    guard (1...1024).contains(threads ?? 1) else { throw ValidationError("--threads must be from 1 to 1024.") }
  }

  var context: ExecutionContext { threads.map { ExecutionContext(threads: $0) } ?? ExecutionContext() }

  /// The model, and components from other files that take the place of its own.
  var files: (base: URL, parts: [String: URL]) { get throws { try parts.files(of: model) } }

  /// The model's name in messages and pictures.
  var name: String {
    (model ?? (parts.isWhole ? parts.unet : nil)).map { URL(filePath: $0).deletingPathExtension().lastPathComponent } ?? "emoji"
  }

  /// Loads the model on an engine thread, so that a signal can end it. Parts of its files that are not used are reported on standard error.
  func load(
    plan: MemoryPlan? = nil, tiles: TileOptions? = nil, adapters: ModelAdapters = ModelAdapters(), in context: ExecutionContext
  ) async throws -> StableDiffusion {
    let (files, weights) = (try files, weights)
    let names = [files.base] + files.parts.sorted { $0.key < $1.key }.map(\.value)
    let description =
      names.map(\.absoluteString) + ["\(weights?.rawValue ?? "")", "\(plan?.description ?? "")"]
      + adapters.adapters.map { "\($0.adapter.url.absoluteString)=\($0.weight)" }
      + adapters.embeddings.map { "\($0.name)=\($0.url?.absoluteString ?? "")" }
    var model = try await ModelShelf.model(description.joined(separator: "\n")) {
      try await context.run {
        try StableDiffusion.load(
          from: files.base, replacing: files.parts, weights: weights, plan: plan, adapters: adapters.adapters,
          embeddings: adapters.embeddings, in: $0)
      }
    }
    try tiles?.apply(to: &model)
    for warning in model.warnings { Progress.warn("\(warning)") }
    return model
  }
}
