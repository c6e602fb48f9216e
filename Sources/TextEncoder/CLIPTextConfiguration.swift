import Foundation
import Tensor
import LatentDiffusionWeights

/// The keys of a text encoder's `config.json`, under transformers' names. Source: `CLIPTextConfig`.
private struct CLIPTextKeys: Decodable {
  var vocab_size: Int?
  var hidden_size: Int?
  var intermediate_size: Int?
  var projection_dim: Int?
  var num_hidden_layers: Int?
  var num_attention_heads: Int?
  var max_position_embeddings: Int?
  var hidden_act: String?
  var layer_norm_eps: Float?
  var eos_token_id: PerLevel<Int>?
  var architectures: [String]?
}

/// A text encoder's shape, complete and checked, with transformers' defaults filled in.
public struct CLIPTextConfiguration: Sendable {
  package let vocabulary: Int
  let hidden: Int
  let intermediate: Int
  /// The length of the projected pooled state; nil without a projection.
  let projection: Int?
  let layers: Int
  let heads: Int
  package let positions: Int
  let activation: Activation
  let epsilon: Float
  let endOfText: Int

  /// The length of each token's state.
  public var features: Int { hidden }
  /// The length of a text's projected state; nil without a projection.
  public var projectedFeatures: Int? { projection }

  /// - Parameter json: a text encoder's `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let c = try decodeConfiguration(CLIPTextKeys.self, component: "CLIPTextModel", from: json)
    let check = ConfigurationCheck("CLIPTextModel")
    vocabulary = c.vocab_size ?? 49408
    hidden = c.hidden_size ?? 512
    intermediate = c.intermediate_size ?? 2048
    projection = c.architectures?.contains("CLIPTextModelWithProjection") == true ? c.projection_dim ?? 512 : nil
    layers = c.num_hidden_layers ?? 12
    heads = c.num_attention_heads ?? 8
    positions = c.max_position_embeddings ?? 77
    epsilon = c.layer_norm_eps ?? 1e-5
    endOfText = c.eos_token_id?.expanded(to: 1)?.first ?? 49407
    let extents = [
      (vocabulary, "vocab_size"), (hidden, "hidden_size"), (intermediate, "intermediate_size"), (projection ?? 1, "projection_dim"),
      (layers, "num_hidden_layers"), (heads, "num_attention_heads"), (positions, "max_position_embeddings"),
    ]
    for (value, key) in extents { try check.extent(value, key) }
    try check.require(epsilon >= 0 && epsilon.isFinite, "layer_norm_eps", "\(epsilon) is no small positive number")
    try check.require(hidden % heads == 0, "num_attention_heads", "\(heads) heads do not divide \(hidden) features")
    switch c.hidden_act ?? "quick_gelu" {
    case "quick_gelu": activation = .quickGELU
    case "gelu": activation = .gelu
    case let other: throw ConfigurationError.unsupported(component: "CLIPTextModel", key: "hidden_act", value: other)
    }
  }
}
