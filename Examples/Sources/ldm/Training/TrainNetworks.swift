import ArgumentParser
import Foundation
import LatentDiffusionTraining

/// Where whole networks begin.
struct BeginningOptions: ParsableArguments {
  @Flag(help: "Begin with random numbers, as a network that has learnt nothing, and not with the model's own.")
  var fromNothing = false

  var traits: [String: String] { ["beginning": fromNothing ? "nothing" : "the model"] }

  /// A component's parameters before the first step.
  func parameters(_ component: String, of model: StableDiffusion, seed: UInt64) throws -> TrainedParameters {
    guard fromNothing else { return try model.trainedParameters(of: component) }
    var generator = TorchGenerator(seed: seed)
    return TrainedParameters(try model.parameters(of: component), drawing: &generator)
  }
}

extension NoiseTraining {
  /// Trains whole components, and writes the model with them.
  func train(whole components: (StableDiffusion) throws -> [String], learnsTexts: Bool, from beginning: BeginningOptions, method: String)
    async throws
  {
    let (seed, url, context) = (run.seed, run.outputURL, base.options.context)
    let planned = (method.hasPrefix("U-Net") ? ["unet"] : []) + (learnsTexts ? ["text_encoder", "text_encoder_2"] : [])
    try await train(
      .parameters(of: planned), traits: beginning.traits.merging(["method": method]) { $1 }, learnsTexts: learnsTexts, isFolder: true
    ) { model in
      TrainedComponents(try components(model).map { ($0, try beginning.parameters($0, of: model, seed: seed)) })
    } write: { trained, model in
      try model.write(trained.parameters, to: url, in: context)
      return url.relativePath
    }
  }
}

extension TrainedComponents {
  /// Components that are trained as a whole.
  var parameters: [(component: String, parameters: TrainedParameters)] {
    parts.compactMap { part in (part.trained as? TrainedParameters).map { (part.component, $0) } }
  }
}

struct TrainUNet: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unet", abstract: "Teaches a model's whole U-Net, from where it is or from nothing.",
    discussion: """
      The result is a folder with the whole model. Of a model in a single file, it is the U-Net alone, for --unet.

      Example: ldm train unet --model models/sd15 --data pictures --output models/mine
      """)

  @OptionGroup var training: NoiseTraining
  @OptionGroup var beginning: BeginningOptions

  @Flag(help: "Train the text encoders, too.")
  var textEncoder = false

  func run() async throws {
    let textEncoder = textEncoder
    try await training.train(
      whole: { ["unet"] + (textEncoder ? $0.textEncoders : []) }, learnsTexts: textEncoder, from: beginning,
      method: textEncoder ? "U-Net and text encoders" : "U-Net")
  }
}

struct TrainTextEncoder: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "text-encoder", abstract: "Teaches a model's whole text encoders, from where they are or from nothing.",
    discussion: """
      The result is a folder with the whole model. Of a model in a single file, it is the text encoders alone, for --text-encoder.

      Example: ldm train text-encoder --model models/sd15 --data pictures --output models/mine
      """)

  @OptionGroup var training: NoiseTraining
  @OptionGroup var beginning: BeginningOptions

  func run() async throws {
    try await training.train(whole: \.textEncoders, learnsTexts: true, from: beginning, method: "text encoders")
  }
}
