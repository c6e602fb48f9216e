import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// A table of classes, each of which a network attends to as to a text of one token. Source: `ClassEmbedder` of the original latent diffusion code, which
/// diffusers has not.
public struct ClassEmbedder: ModelComponent {
  /// How many classes the table has (`n_classes`). The last one stands for none in models that were trained to be guided.
  public let classes: Int
  /// The length of a class's state (`embed_dim`).
  public let features: Int
  private let embedding: Embedding

  public static var classNames: [String] { ["ClassEmbedder"] }

  private struct Keys: Decodable { var n_classes, embed_dim: Int? }

  /// Takes `embedding.weight`.
  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    let keys = try decodeConfiguration(Keys.self, component: "ClassEmbedder", from: json)
    let check = ConfigurationCheck("ClassEmbedder")
    (classes, features) = (keys.n_classes ?? 1000, keys.embed_dim ?? 0)
    try check.extent(classes, "n_classes")
    try check.extent(features, "embed_dim")
    embedding = try Embedding(classes, features: features, weights: weights["embedding"])
  }

  /// - Parameter labels: of N classes.
  /// - Returns: `[N, 1, features]`.
  /// - Precondition: the table has them.
  /// - Throws: what the engine throws.
  func callAsFunction(_ labels: [Int], in context: ExecutionContext) throws -> Tensor {
    try embedding(labels, in: context).reshaped([labels.count, 1, features])
  }
}

/// Takes prompts as classes of a table. Source: the original latent diffusion code's sampling of ImageNet's classes.
public struct ClassEmbeddingConditioner: TextConditioner {
  /// Nil: every prompt is the first class, as a plan counts.
  public let classes: ClassConditioner?
  /// The table.
  public let embedder: ClassEmbedder

  /// Classes by their numbers or names, and the table that has them.
  public init(classes: ClassConditioner?, embedder: ClassEmbedder) { (self.classes, self.embedder) = (classes, embedder) }

  /// - Throws: `ComponentError` where a prompt is no class; what the engine throws.
  public func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let labels = try request.prompts.map { request.isAbsent ? embedder.classes - 1 : try classes?.number(of: $0) ?? 0 }
    return Conditioning(hiddenStates: try embedder(labels, in: context))
  }
}
