import Foundation
import LatentDiffusionWeights

/// The keys of a ControlNet's `config.json` that its copy of the U-Net has not. Source: diffusers' `ControlNetModel`.
private struct ControlNetKeys: Decodable {
  var conditioning_channels: Int?
  var conditioning_embedding_out_channels: [Int]?
  var controlnet_conditioning_channel_order: String?
  var global_pool_conditions: Bool?
}

/// A ControlNet's shape, complete and checked.
public struct ControlNetConfiguration: Sendable {
  /// Of the U-Net whose way down it copies.
  let unet: UNet2DConfiguration
  /// Of its pictures.
  let conditioningChannels: Int
  /// Of the layers that make a picture as small as latents.
  let embeddingChannels: [Int]
  /// Whether it takes blue first.
  let takesBlueFirst: Bool
  /// Whether it says the same of every place: the mean.
  let poolsGlobally: Bool

  /// - Parameter json: a ControlNet's `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let component = "ControlNetModel"
    let keys = try decodeConfiguration(ControlNetKeys.self, component: component, from: json)
    let check = ConfigurationCheck(component)
    unet = try UNet2DConfiguration(json: json, of: component, hasWayUp: false)
    conditioningChannels = keys.conditioning_channels ?? 3
    embeddingChannels = keys.conditioning_embedding_out_channels ?? [16, 32, 96, 256]
    try check.extent(conditioningChannels, "conditioning_channels")
    let key = "conditioning_embedding_out_channels"
    try check.require((1...16).contains(embeddingChannels.count), key, "\(embeddingChannels.count) layers")
    for channels in embeddingChannels { try check.extent(channels, key) }
    let order = keys.controlnet_conditioning_channel_order ?? "rgb"
    try check.supported(["rgb", "bgr"].contains(order), "controlnet_conditioning_channel_order", order)
    takesBlueFirst = order == "bgr"
    poolsGlobally = keys.global_pool_conditions ?? false
  }
}
