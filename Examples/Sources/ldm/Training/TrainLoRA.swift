import ArgumentParser
import Foundation
import LatentDiffusionTraining

extension LowRankTargets: @retroactive ExpressibleByArgument {}
extension TrainedLowRank.Keys: @retroactive ExpressibleByArgument {}

struct TrainLoRA: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lora", abstract: "Teaches a model something new by a small file beside it.",
    discussion: """
      The model stays as it is, in whatever form its weights are. The file is used with --lora, here and in other programs.

      Example: ldm train lora --model models/sd15 --data pictures --rank 16 --steps 1000 --output my.safetensors
      """)

  @OptionGroup var training: NoiseTraining

  @Option(parsing: .unconditional, help: "How many numbers a change of a matrix has room for: 4 for a style, 16 for most, up to 128.")
  var rank = 16

  @Option(parsing: .unconditional, help: "How strongly changes count is alpha / rank. Without it, the rank.")
  var alpha: Float?

  @Option(
    parsing: .unconditional,
    help: "Which layers are changed: attention, or convolutions, which are those and all other layers within blocks.")
  var layers = LowRankTargets.attention

  @Flag(help: "Change the text encoders, too.")
  var textEncoder = false

  @Option(parsing: .unconditional, help: "The names in the file: diffusers, or kohya, which most other tools read.")
  var keys = TrainedLowRank.Keys.diffusers

  func validate() throws {
    guard (1...1024).contains(rank) else { throw ValidationError("--rank must be from 1 to 1024.") }
    guard alpha.map({ $0 > 0 && $0.isFinite }) ?? true else { throw ValidationError("--alpha must be above 0.") }
  }

  func run() async throws {
    let (rank, alpha, layers, textEncoder, keys, seed, url) = (
      rank, alpha, layers, textEncoder, keys, training.run.seed, training.run.outputURL
    )
    try await training.train(
      .lowRank(rank: rank, layers, textEncoders: textEncoder),
      traits: ["method": "lora", "rank": "\(rank)", "alpha": "\(alpha ?? Float(rank))", "choice of layers": layers.rawValue],
      learnsTexts: textEncoder, isFolder: false
    ) { model in
      var generator = TorchGenerator(seed: seed)
      let components = ["unet"] + (textEncoder ? model.textEncoders : [])
      return TrainedComponents(
        try components.map { component in
          let labels = layers.labels(among: try model.parameters(of: component))
          return (component, TrainedLowRank(labels, rank: rank, alpha: alpha, with: &generator))
        })
    } write: { trained, _ in
      guard let file = LowRankFile(trained) else { throw Failure("What was trained is no change of low rank.") }
      try file.write(to: url, keys: keys)
      return url.relativePath
    }
  }
}

extension StableDiffusion {
  /// The components that read prompts.
  var textEncoders: [String] { family.parts.filter { $0.role == .conditioner && reports[$0.name] != nil }.map(\.name) }
}
