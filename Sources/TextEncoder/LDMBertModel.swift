import Foundation
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The keys of the text encoder's `config.json`. Source: diffusers' `LDMBertConfig`.
private struct LDMBertKeys: Decodable {
  var vocab_size, max_position_embeddings, encoder_layers, encoder_ffn_dim, encoder_attention_heads, head_dim, d_model: Int?
  var activation_function: String?
}

/// The text encoder of the first latent diffusion models: a transformer whose tokens all see one another, padding too. Source: Rombach et al. 2022,
/// diffusers' `LDMBertModel`.
///
/// In training the vector of padding has a gradient like all others, as in the original code. In diffusers' class it has none.
public struct LDMBertModel: ModelComponent {
  package let vocabulary: Int
  let positions: Int
  /// The length of each token's state.
  public let features: Int
  private let tokenEmbedding: Embedding
  private let positionEmbedding: Parameter<Tensor>
  private let layers: [LDMBertEncoderLayer]
  private let layerNorm: LayerNorm

  public static var classNames: [String] { ["LDMBertModel"] }
  public static var quantization: QuantizationRule { .matrices(except: ["embed_tokens.", "embed_positions."]) }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    let c = try decodeConfiguration(LDMBertKeys.self, component: "LDMBertModel", from: json)
    let check = ConfigurationCheck("LDMBertModel")
    (vocabulary, positions, features) = (c.vocab_size ?? 30522, c.max_position_embeddings ?? 77, c.d_model ?? 1280)
    let (count, inner, heads, head) =
      (c.encoder_layers ?? 32, c.encoder_ffn_dim ?? 5120, c.encoder_attention_heads ?? 8, c.head_dim ?? 64)
    let extents = [
      (vocabulary, "vocab_size"), (positions, "max_position_embeddings"), (features, "d_model"), (count, "encoder_layers"),
      (inner, "encoder_ffn_dim"), (heads, "encoder_attention_heads"), (head, "head_dim"),
    ]
    for (value, key) in extents { try check.extent(value, key) }
    try check.require(positions >= 2, "max_position_embeddings", "it leaves no room for begin and end")
    try check.supported((c.activation_function ?? "gelu") == "gelu", "activation_function", c.activation_function ?? "")
    let scope = weights["model"]
    tokenEmbedding = try Embedding(vocabulary, features: features, weights: scope["embed_tokens"])
    positionEmbedding = try scope["embed_positions"].vector("weight", shape: [positions, features])
    layers = try (0..<count).map { [features] in
      try LDMBertEncoderLayer(features, heads: heads, headChannels: head, inner: inner, weights: scope["layers"][$0])
    }
    layerNorm = try LayerNorm(features, weights: scope["layer_norm"])
  }

  /// - Parameter ids: of N texts, all of the same length up to `max_position_embeddings`.
  /// - Returns: `[N, L, features]`: the states after the last normalisation.
  /// - Throws: `CLIPTextError`, `CancellationError`.
  public func callAsFunction(_ ids: [[Int]], in context: ExecutionContext) throws -> Tensor {
    let length = ids.first?.count ?? 0
    guard (1...positions).contains(length), ids.allSatisfy({ $0.count == length }) else {
      throw CLIPTextError.wrongLength(found: length, maximum: positions)
    }
    if let id = ids.joined().first(where: { !(0..<vocabulary).contains($0) }) {
      throw CLIPTextError.tokenOutOfRange(id: id, vocabulary: vocabulary)
    }
    let tokens = try tokenEmbedding(Array(ids.joined()), in: context)
    let places = try positionEmbedding.value(in: context).rows(0..<length, in: context).repeated(ids.count, in: context)
    var x = try tokens.adding(places, in: context).reshaped([ids.count, length, features])
    for layer in layers { x = try layer(x, in: context) }
    return try layerNorm(x, in: context)
  }
}

/// Attention and a feed-forward net, each after a normalisation. Source: diffusers' `LDMBertEncoderLayer`.
private struct LDMBertEncoderLayer: Sendable {
  private let selfAttentionNorm: LayerNorm
  private let selfAttention: Attention
  private let finalNorm: LayerNorm
  private let fc1: Linear
  private let fc2: Linear
  private let path: String

  init(_ features: Int, heads: Int, headChannels: Int, inner: Int, weights: WeightScope) throws {
    selfAttentionNorm = try LayerNorm(features, weights: weights["self_attn_layer_norm"])
    selfAttention = try Attention(
      features, heads: heads, headChannels: headChannels, bias: false, naming: .transformers, weights: weights["self_attn"])
    finalNorm = try LayerNorm(features, weights: weights["final_layer_norm"])
    fc1 = try Linear(features, inner, weights: weights["fc1"])
    fc2 = try Linear(inner, features, weights: weights["fc2"])
    path = weights.prefix
  }

  func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let attended = try selfAttention(selfAttentionNorm(x, in: context), adding: x, in: context)
    let result = try fc2(fc1(finalNorm(attended, in: context), activation: .gelu, in: context), adding: attended, in: context)
    context.observer?(path, result)
    return result
  }
}
