import Foundation
import LatentDiffusionWeights
import Tensor

/// The keys of a tiny autoencoder's `config.json`, under diffusers' names. Source: `AutoencoderTiny`.
private struct AutoencoderTinyKeys: Decodable {
  var in_channels: Int?
  var out_channels: Int?
  var encoder_block_out_channels: [Int]?
  var decoder_block_out_channels: [Int]?
  var act_fn: String?
  var upsample_fn: String?
  var latent_channels: Int?
  var upsampling_scaling_factor: Int?
  var num_encoder_blocks: [Int]?
  var num_decoder_blocks: [Int]?
  var scaling_factor: Float?
  var shift_factor: Float?
}

/// The shape of a tiny autoencoder, complete and checked, with diffusers' defaults filled in. `latent_magnitude` and `latent_shift` are not here: by
/// them latents are stored as bytes, which neither encoding nor decoding does.
public struct AutoencoderTinyConfiguration: Sendable {
  let encoderChannels: Int
  let decoderChannels: Int
  /// Blocks of each level.
  let encoderBlocks: [Int], decoderBlocks: [Int]
  let activation: Activation
  let latentChannels: Int
  /// How many times as large the sides are after each level of the decoder but the last.
  let upsampling: Int
  let scalingFactor: Float
  let shiftFactor: Float
  /// Pixels a side for each latent a side.
  public let spatialScale: Int

  /// - Parameter json: the `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let check = ConfigurationCheck("AutoencoderTiny")
    let c = try decodeConfiguration(AutoencoderTinyKeys.self, component: check.component, from: json)
    let encoder = c.encoder_block_out_channels ?? [64, 64, 64, 64], decoder = c.decoder_block_out_channels ?? [64, 64, 64, 64]
    encoderBlocks = c.num_encoder_blocks ?? [1, 3, 3, 3]
    decoderBlocks = c.num_decoder_blocks ?? [3, 3, 3, 1]
    encoderChannels = try Self.channels(encoder, of: encoderBlocks, "encoder", check)
    decoderChannels = try Self.channels(decoder, of: decoderBlocks, "decoder", check)
    latentChannels = c.latent_channels ?? 4
    upsampling = c.upsampling_scaling_factor ?? 2
    try check.extent(latentChannels, "latent_channels")
    try check.require((1...16).contains(upsampling), "upsampling_scaling_factor", "\(upsampling) is not between 1 and 16")
    spatialScale = 1 << (encoderBlocks.count - 1)
    let decoded = repeatElement(upsampling, count: decoderBlocks.count - 1).reduce(1) { min($0 * $1, 1 << 20) }
    try check.supported(
      decoded == spatialScale, "upsampling_scaling_factor",
      "\(upsampling), with which decoding enlarges \(decoded) times what encoding reduces \(spatialScale) times")
    (scalingFactor, shiftFactor) = (c.scaling_factor ?? 1, c.shift_factor ?? 0)
    try check.latents(scale: scalingFactor, shift: shiftFactor)
    try check.supported((c.in_channels ?? 3) == 3, "in_channels", "\(c.in_channels ?? 3)")
    try check.supported((c.out_channels ?? 3) == 3, "out_channels", "\(c.out_channels ?? 3)")
    try check.supported((c.upsample_fn ?? "nearest") == "nearest", "upsample_fn", c.upsample_fn ?? "")
    switch (c.act_fn ?? "relu").lowercased() {
    case "relu": activation = .relu
    case "silu", "swish": activation = .silu
    case "gelu": activation = .gelu
    default: throw ConfigurationError.unsupported(component: check.component, key: "act_fn", value: c.act_fn ?? "")
    }
  }

  /// The channels of all levels: no layer is between levels that could change their number.
  private static func channels(_ channels: [Int], of blocks: [Int], _ half: String, _ check: ConfigurationCheck) throws -> Int {
    let key = "\(half)_block_out_channels"
    try check.require(channels.count == blocks.count, key, "it has \(channels.count) levels, and num_\(half)_blocks \(blocks.count)")
    try check.require((1...16).contains(channels.count), key, "\(channels.count) levels")
    try check.require(channels.allSatisfy { $0 == channels[0] }, key, "its levels differ, and no layer joins them")
    try check.extent(channels[0], key)
    for count in blocks {
      try check.require((0...1000).contains(count), "num_\(half)_blocks", "\(count) is not between 0 and 1000")
    }
    return channels[0]
  }
}
