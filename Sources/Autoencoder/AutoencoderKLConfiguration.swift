import Foundation
import LatentDiffusionWeights

/// The keys of an autoencoder's `config.json`, under diffusers' names. Source: `AutoencoderKL`.
struct AutoencoderKLKeys: Decodable, Sendable {
  var in_channels: Int?
  var out_channels: Int?
  var down_block_types: [String]?
  var up_block_types: [String]?
  var block_out_channels: [Int]?
  var layers_per_block: Int?
  var act_fn: String?
  var latent_channels: Int?
  var norm_num_groups: Int?
  var scaling_factor: Float?
  var shift_factor: Float?
  var use_quant_conv: Bool?
  var use_post_quant_conv: Bool?
  var mid_block_add_attention: Bool?
}

/// An autoencoder's shape, complete and checked, with diffusers' defaults filled in.
public struct AutoencoderKLConfiguration: Sendable {
  let channels: [Int]
  let resnets: Int
  let groups: Int
  let latentChannels: Int
  let scalingFactor: Float
  let shiftFactor: Float
  let hasQuantConvolution: Bool
  let hasPostQuantConvolution: Bool
  let hasAttention: Bool

  /// - Parameter json: an autoencoder's `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let c = try decodeConfiguration(AutoencoderKLKeys.self, component: "AutoencoderKL", from: json)
    let check = ConfigurationCheck("AutoencoderKL")
    channels = c.block_out_channels ?? [64]
    resnets = c.layers_per_block ?? 1
    groups = c.norm_num_groups ?? 32
    latentChannels = c.latent_channels ?? 4
    scalingFactor = c.scaling_factor ?? 0.18215
    shiftFactor = c.shift_factor ?? 0
    hasQuantConvolution = c.use_quant_conv ?? true
    hasPostQuantConvolution = c.use_post_quant_conv ?? true
    hasAttention = c.mid_block_add_attention ?? true
    try check.require((1...16).contains(channels.count), "block_out_channels", "\(channels.count) levels")
    for value in channels { try check.extent(value, "block_out_channels") }
    let extents = [
      (resnets, "layers_per_block"), (groups, "norm_num_groups"), (latentChannels, "latent_channels"),
    ]
    for (value, key) in extents {
      try check.extent(value, key)
    }
    for value in channels {
      try check.require(value % groups == 0, "norm_num_groups", "\(groups) groups do not divide \(value) channels")
    }
    try check.require(scalingFactor.isFinite && scalingFactor != 0, "scaling_factor", "\(scalingFactor) scales nothing")
    try check.require(shiftFactor.isFinite, "shift_factor", "it is not finite")
    try check.supported((c.in_channels ?? 3) == 3, "in_channels", "\(c.in_channels ?? 3)")
    try check.supported((c.out_channels ?? 3) == 3, "out_channels", "\(c.out_channels ?? 3)")
    try check.supported(["silu", "swish"].contains(c.act_fn ?? "silu"), "act_fn", c.act_fn ?? "")
    for type in c.down_block_types ?? [] { try check.supported(type == "DownEncoderBlock2D", "down_block_types", type) }
    for type in c.up_block_types ?? [] { try check.supported(type == "UpDecoderBlock2D", "up_block_types", type) }
  }

  /// Pixels a side for each latent a side.
  public var spatialScale: Int { 1 << (channels.count - 1) }
}
