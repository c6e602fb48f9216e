import Foundation
import LatentDiffusionFiles
import LatentDiffusionWeights
import Tensor
import TextEncoder

/// A word in training: vectors for one or two text encoders, while all networks stay as they are (textual inversion).
///
/// The model that it trains with must know the word, so that prompts can have it:
///
/// ```swift
/// let word = try TextualInversion(name: "<cat-toy>", vectors: 2, beginningAs: "toy", in: conditioner)
/// let model = try DiffusionModel.load(from: folder, embeddings: [word])
/// var embedding = TrainedEmbedding(word)
/// ```
///
/// Source: Gal et al. 2022 (arXiv:2208.01618), diffusers' `textual_inversion.py` and `textual_inversion_sdxl.py`.
public struct TrainedEmbedding: Trainable {
  /// The word as it began, which the model knows.
  public let word: TextualInversion
  /// `[n, D]` for each text encoder.
  public var values: [Tensor]

  /// - Parameter word: as it begins, the same value that the model was given.
  public init(_ word: TextualInversion) { (self.word, values) = (word, word.vectors) }

  /// As a file has them: the word if it is for one text encoder, `clip_l` and `clip_g` if it is for two.
  public var names: [String] { word.keys }

  /// The word with the vectors that have been learned, for models that are loaded from now on.
  /// - Precondition: there is a value for each text encoder.
  public var learned: TextualInversion { word.with(vectors: values) }

  public func placed(in model: Adaptation.Model, on tape: GradientTape?, in context: ExecutionContext) throws -> PlacedParameters {
    var adaptation = Adaptation(of: model)
    // Tensors of their own, since a tape knows tensors by their memory.
    let vectors = values.map { $0.copied() }
    for (own, tensor) in zip(word.vectors, vectors) {
      tape?.follow(tensor)
      adaptation.vectors[own.id] = tensor
    }
    return PlacedParameters(adaptation) { all in vectors.map { all[$0] ?? Tensor(shape: $0.shape) } }
  }

  /// The vectors as tensors of a file.
  public var tensors: [String: Tensor] { Dictionary(zip(names, values)) { first, _ in first } }

  /// Writes the vectors as one safetensors file, whole or not at all, as `save_progress` of diffusers' `textual_inversion.py` writes them:
  /// one tensor `[n, D]` under the word's name, or those of two text encoders as `clip_l` and `clip_g`.
  /// - Throws: `FileWriteError`; an existing file is then unchanged.
  public func write(to url: URL) throws(FileWriteError) {
    try SafetensorsWriter.write(tensors, metadata: ["format": "pt"], to: url)
  }
}
