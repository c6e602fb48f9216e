import Foundation
import LatentDiffusionLayers
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
  let layer: CLIPEncoderLayer.Configuration
  /// The length of the projected pooled state; nil without a projection.
  let projection: Int?
  let layers: Int
  package let positions: Int
  let endOfText: Int

  var hidden: Int { layer.hidden }

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
    layer = try CLIPEncoderLayer.Configuration(
      hidden: c.hidden_size ?? 512, intermediate: c.intermediate_size ?? 2048, heads: c.num_attention_heads ?? 8,
      activation: c.hidden_act, epsilon: c.layer_norm_eps, check)
    projection = c.architectures?.contains("CLIPTextModelWithProjection") == true ? c.projection_dim ?? 512 : nil
    layers = c.num_hidden_layers ?? 12
    positions = c.max_position_embeddings ?? 77
    endOfText = c.eos_token_id?.expanded(to: 1)?.first ?? 49407
    let extents = [
      (vocabulary, "vocab_size"), (projection ?? 1, "projection_dim"), (layers, "num_hidden_layers"),
      (positions, "max_position_embeddings"),
    ]
    for (value, key) in extents { try check.extent(value, key) }
  }
}
