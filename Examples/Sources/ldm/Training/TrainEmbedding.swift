import ArgumentParser
import Foundation
import LatentDiffusionTraining

struct TrainEmbedding: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "embedding", abstract: "Teaches a model a new word for what pictures show (textual inversion).",
    discussion: """
      All networks stay as they are. The file has a few vectors and is used with --embedding WORD=FILE. Captions must have the word; pictures without a \
      caption get "a photo of WORD", or what --default-caption says.

      Example: ldm train embedding --word "<my-cat>" --initial-text cat --data pictures --output my-cat.safetensors
      """)

  @OptionGroup var training: NoiseTraining

  @Option(parsing: .unconditional, help: "The new word, such as <cat-toy>: one that the model does not know.")
  var word: String

  @Option(parsing: .unconditional, help: "A text that is near to it, of no more tokens than there are vectors: the word begins as this.")
  var initialText: String

  @Option(parsing: .unconditional, help: "How many tokens the word stands for.")
  var vectors = 1

  func validate() throws {
    guard (1...75).contains(vectors) else { throw ValidationError("--vectors must be from 1 to 75.") }
    guard !word.contains(where: \.isWhitespace), !word.isEmpty else { throw ValidationError("--word must be one word, such as <cat-toy>.") }
  }

  func run() async throws {
    var training = training
    training.data.defaultCaption = training.data.defaultCaption ?? "a photo of \(word)"
    let (word, vectors, text, url) = (word, vectors, initialText, training.run.outputURL)
    var made: TextualInversion?
    try await training.train(
      .word, traits: ["method": "embedding", "word": word, "number of vectors": "\(vectors)", "beginning": text], learnsTexts: true,
      isFolder: false,
      teaching: { model in
        guard let conditioner = model.pipeline.conditioner as? any VocabularyConditioner else {
          throw Failure("The model's text encoder takes no new words; give a model with CLIP's with --model.")
        }
        let new = try TextualInversion(name: word, vectors: vectors, beginningAs: text, in: conditioner)
        made = new
        return new
      }
    ) { _ in
      guard let made else { throw Failure("The word was not made.") }
      return TrainedComponents([("text_encoder", TrainedEmbedding(made))])
    } write: { trained, _ in
      guard let embedding = trained.parts.first?.trained as? TrainedEmbedding else { throw Failure("What was trained is no word.") }
      try embedding.write(to: url)
      return url.relativePath
    }
  }
}
