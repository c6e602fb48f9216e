import ArgumentParser

/// The commands that teach a model.
struct Train: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "train", abstract: "Teaches a model with pictures and captions.",
    discussion: """
      A run that is stopped goes on with the same command and --resume, and ends with the same bytes as one that was not. All options can stand in a JSON file \
      that --config names: {"rank": 8, "learning-rate": 1e-4, "flip": true}.

      Example: ldm train lora --data pictures --output my.safetensors
      """,
    subcommands: [TrainLoRA.self, TrainEmbedding.self, TrainUNet.self, TrainTextEncoder.self, TrainAutoencoder.self])
}
