import Foundation
import LatentDiffusionLayers
import LatentDiffusionWeights

/// The keys of an image encoder's `config.json`, under transformers' names. Source: `CLIPVisionConfig`.
private struct CLIPVisionKeys: Decodable {
  var hidden_size: Int?
  var intermediate_size: Int?
  var projection_dim: Int?
  var num_hidden_layers: Int?
  var num_attention_heads: Int?
  var num_channels: Int?
  var image_size: Int?
  var patch_size: Int?
  var hidden_act: String?
  var layer_norm_eps: Float?
}

/// An image encoder's shape, complete and checked, with transformers' defaults filled in.
public struct CLIPVisionConfiguration: Sendable {
  let layer: CLIPEncoderLayer.Configuration
  let layers: Int
  let patchSize: Int
  /// The length of a picture's projected state.
  public let projectedFeatures: Int
  /// Pixels a side of the pictures that it takes.
  public let imageSize: Int

  /// The length of each token's state.
  public var features: Int { layer.hidden }
  /// Patches a side.
  var side: Int { imageSize / patchSize }
  /// Tokens of a picture: one for each patch, and one for the whole.
  public var tokens: Int { side * side + 1 }

  /// - Parameter json: an image encoder's `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let c = try decodeConfiguration(CLIPVisionKeys.self, component: "CLIPVisionModel", from: json)
    let check = ConfigurationCheck("CLIPVisionModel")
    layer = try CLIPEncoderLayer.Configuration(
      hidden: c.hidden_size ?? 768, intermediate: c.intermediate_size ?? 3072, heads: c.num_attention_heads ?? 12,
      activation: c.hidden_act, epsilon: c.layer_norm_eps, check)
    layers = c.num_hidden_layers ?? 12
    projectedFeatures = c.projection_dim ?? 512
    imageSize = c.image_size ?? 224
    patchSize = c.patch_size ?? 32
    for (value, key) in [(layers, "num_hidden_layers"), (projectedFeatures, "projection_dim")] { try check.extent(value, key) }
    try check.supported(c.num_channels ?? 3 == 3, "num_channels", "\(c.num_channels ?? 3)")
    try check.require((1...Self.largestSide).contains(imageSize), "image_size", "\(imageSize) is not between 1 and \(Self.largestSide)")
    try check.require((1...imageSize).contains(patchSize), "patch_size", "\(patchSize) is not between 1 and \(imageSize)")
    // What is left of a picture beside whole patches would be cut off by the reference.
    try check.require(imageSize.isMultiple(of: patchSize), "patch_size", "\(patchSize) does not divide pictures of \(imageSize)")
  }

  /// No known encoder takes larger pictures.
  private static let largestSide = 4096
}
