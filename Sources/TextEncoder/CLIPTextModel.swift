import Foundation
import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

/// Errors in token ids.
public enum CLIPTextError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A token that the vocabulary lacks.
  case tokenOutOfRange(id: Int, vocabulary: Int)
  /// No tokens, texts of different lengths, or more tokens than positions.
  case wrongLength(found: Int, maximum: Int)
  /// A mask of another shape than the texts, or one that leaves a text's first token out, so that it would see nothing.
  case wrongMask
  /// More layers to skip than there are.
  case tooFewLayers(skipped: Int, layers: Int)

  public var description: String {
    switch self {
    case .tokenOutOfRange(let id, let vocabulary):
      "The token \(id) is beyond the text encoder's vocabulary of \(vocabulary): tokenizer and text encoder do not belong together."
    case .wrongLength(let found, let maximum):
      "The text encoder takes prompts of equal length, from 1 to \(maximum) tokens, but was given \(found)."
    case .wrongMask: "The text encoder's mask must have a value for each token, and the first token of a text must be seen."
    case .tooFewLayers(let skipped, let layers):
      "\(skipped) layers cannot be skipped: the text encoder has \(layers)."
    }
  }
}

/// CLIP's text tower. Source: Radford et al. 2021; transformers' `CLIPTextModel` and, with a projection, `CLIPTextModelWithProjection`.
public struct CLIPTextModel: ModelComponent {
  /// What the configuration says.
  public let configuration: CLIPTextConfiguration
  private let tokenEmbedding: Embedding
  /// `[n, D]` each: the vectors of words whose tokens follow those of the table. A context's adaptation finds what takes their place by their identities.
  private var addedEmbeddings: [Tensor] = []
  private let positionEmbedding: Parameter<Tensor>
  private let layers: [CLIPEncoderLayer]
  private let finalLayerNorm: LayerNorm
  private let textProjection: Linear?

  /// The states after the tower.
  public struct Output: Sendable {
    /// `[N, L, D]`: after the last layer that is not skipped and the final normalisation.
    public let lastHiddenState: Tensor
    /// `[N, L, D]`: after the same layer, before the final normalisation.
    public let unnormalized: Tensor
    /// `[N, D]`: the normalised state of each text's end, after the whole tower if the model has a projection, and else after the same layer.
    public let pooled: Tensor
    /// `[N, P]`: the projection of the pooled state, if the model has one.
    public let textEmbeds: Tensor?
  }

  /// Keys as transformers 5 writes them, without `text_model.`.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: CLIPTextConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let embeddings = weights["embeddings"]
    tokenEmbedding = try Embedding(configuration.vocabulary, features: configuration.hidden, weights: embeddings["token_embedding"])
    positionEmbedding = try embeddings["position_embedding"].vector("weight", shape: [configuration.positions, configuration.hidden])
    layers = try (0..<configuration.layers).map {
      try CLIPEncoderLayer(configuration.layer, causal: true, weights: weights["encoder"]["layers"][$0])
    }
    finalLayerNorm = try LayerNorm(configuration.hidden, epsilon: configuration.layer.epsilon, weights: weights["final_layer_norm"])
    textProjection = try configuration.projection.map {
      try Linear(configuration.hidden, $0, bias: false, weights: weights["text_projection"])
    }
  }

  public static var classNames: [String] { ["CLIPTextModel", "CLIPTextModelWithProjection"] }

  public static var quantization: QuantizationRule {
    .matrices(except: ["embeddings.", "text_projection", "token_embedding.", "positional_embedding"])
  }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(CLIPTextConfiguration(json: json), weights: weights)
  }

  /// - Parameters:
  ///   - ids: of N texts, all of the same length up to `max_position_embeddings`.
  ///   - mask: for each text which of its tokens others see (`attention_mask`), the first one among them; nil: all.
  ///   - skippedLayers: how many of the last layers to skip (`clip_skip`).
  ///   - end: the token whose first state a text is pooled at; nil: what the configuration says.
  /// - Throws: `CLIPTextError`, `CancellationError`.
  public func callAsFunction(
    _ ids: [[Int]], mask: [[Bool]]? = nil, skippedLayers: Int = 0, end: Int? = nil, in context: ExecutionContext
  ) throws -> Output {
    let length = ids.first?.count ?? 0
    guard (1...configuration.positions).contains(length), ids.allSatisfy({ $0.count == length }) else {
      throw CLIPTextError.wrongLength(found: length, maximum: configuration.positions)
    }
    if let mask, mask.count != ids.count || !mask.allSatisfy({ $0.count == length && $0[0] }) { throw CLIPTextError.wrongMask }
    guard (0...layers.count).contains(skippedLayers) else {
      throw CLIPTextError.tooFewLayers(skipped: skippedLayers, layers: layers.count)
    }
    var x = try embed(ids, in: context)
    context.observer?("embeddings", x)
    for layer in layers.dropLast(skippedLayers) { x = try layer(x, seeing: mask, in: context) }
    let states = x, normalizedStates = try finalLayerNorm(x, in: context)
    var normalized = normalizedStates
    if textProjection != nil, skippedLayers > 0 {
      for layer in layers.suffix(skippedLayers) { x = try layer(x, seeing: mask, in: context) }
      normalized = try finalLayerNorm(x, in: context)
    }
    let ends = try ids.enumerated().map { index, text in
      let token = end.map { text.firstIndex(of: $0) ?? 0 } ?? self.end(of: text)
      return try normalized.reshaped([ids.count * length, configuration.hidden]).rows(
        index * length + token..<index * length + token + 1, in: context)
    }
    let pooled = try Tensor.concatenated(ends, axis: 0, in: context)
    return Output(
      lastHiddenState: normalizedStates, unnormalized: states, pooled: pooled,
      textEmbeds: try textProjection.map { try $0(pooled, in: context) })
  }

  /// How many tokens have a vector: those of the configuration, and those that were added.
  public var vocabulary: Int { configuration.vocabulary + addedEmbeddings.reduce(0) { $0 + $1.shape[0] } }

  /// The same model with vectors for more tokens, whose identifiers follow those that it knows.
  ///
  /// - Parameter vectors: `[n, features]`. In a context with an adaptation, what that has for the tensor's identity takes their place.
  /// - Precondition: the vectors have the model's features.
  public func adding(_ vectors: Tensor) -> CLIPTextModel {
    precondition(vectors.shape.rank == 2 && vectors.shape[1] == configuration.hidden, "\(vectors.shape) are no vectors of tokens.")
    var model = self
    model.addedEmbeddings.append(vectors)
    return model
  }

  /// `[ids.count, D]`: the vectors of tokens.
  /// - Precondition: there is at least one.
  /// - Throws: `CLIPTextError.tokenOutOfRange`, and what the engine throws.
  func embeddings(of ids: [Int], in context: ExecutionContext) throws -> Tensor {
    if let id = ids.first(where: { !(0..<vocabulary).contains($0) }) {
      throw CLIPTextError.tokenOutOfRange(id: id, vocabulary: vocabulary)
    }
    let known = ids.filter { $0 < tokenEmbedding.count }
    guard known.count < ids.count else { return try tokenEmbedding(ids, in: context) }
    // Those of the table in their order, then all that were added.
    let ofTable = try known.isEmpty ? [] : [tokenEmbedding(known, in: context)]
    let added = addedEmbeddings.map { context.adaptation?.vectors[$0.id] ?? $0 }
    var next = 0
    let places = ids.map { id in
      guard id < tokenEmbedding.count else { return known.count + id - tokenEmbedding.count }
      defer { next += 1 }
      return next
    }
    return try Tensor.concatenated(ofTable + added, axis: 0, in: context).rows(at: places, in: context)
  }

  /// `[N, L, D]`: the sum of each token's vector and its position's.
  private func embed(_ ids: [[Int]], in context: ExecutionContext) throws -> Tensor {
    let length = ids[0].count
    let tokens = try embeddings(of: Array(ids.joined()), in: context)
    let places = try positionEmbedding.value(in: context).rows(0..<length, in: context).repeated(ids.count, in: context)
    return try tokens.adding(places, in: context).reshaped([ids.count, length, configuration.hidden])
  }

  /// The index of a text's end. Configurations from before transformers 4.31 wrongly name 2 as the end; in their texts the end is the highest id.
  private func end(of ids: [Int]) -> Int {
    let wanted = configuration.endOfText == 2 ? ids.max() : configuration.endOfText
    return ids.firstIndex { $0 == wanted } ?? 0
  }
}
