import LatentDiffusionWeights

/// The keys of `config.json` that autoencoders of resnets share, under diffusers' names. Source: `AutoencoderKL`, `VQModel`.
struct AutoencoderShapeKeys: Decodable, Sendable {
  var in_channels: Int?
  var out_channels: Int?
  var down_block_types: [String]?
  var up_block_types: [String]?
  var block_out_channels: [Int]?
  var layers_per_block: Int?
  var act_fn: String?
  var latent_channels: Int?
  var norm_num_groups: Int?
  var mid_block_add_attention: Bool?
}

/// The shape of an encoder and a decoder of resnets, checked, with diffusers' defaults filled in.
struct AutoencoderShape: Sendable {
  /// Of each level, from the picture's resolution down.
  let channels: [Int]
  let resnets: Int
  let groups: Int
  let latentChannels: Int
  /// Whether the lowest resolution has attention.
  let hasAttention: Bool
  /// Whether the frames of a clip see one another in the decoder.
  var decodesClips = false
  /// Which blocks of the encoder have attention, and which of the decoder, each in its own order.
  let attendsDown: [Bool], attendsUp: [Bool]

  /// - Parameter latentChannels: where the configuration does not say it.
  /// - Throws: `ConfigurationError`.
  init(_ c: AutoencoderShapeKeys, latentChannels: Int, _ check: ConfigurationCheck) throws {
    channels = c.block_out_channels ?? [64]
    resnets = c.layers_per_block ?? 1
    groups = c.norm_num_groups ?? 32
    self.latentChannels = c.latent_channels ?? latentChannels
    hasAttention = c.mid_block_add_attention ?? true
    try check.require((1...16).contains(channels.count), "block_out_channels", "\(channels.count) levels")
    for value in channels { try check.extent(value, "block_out_channels") }
    let extents = [(resnets, "layers_per_block"), (groups, "norm_num_groups"), (self.latentChannels, "latent_channels")]
    for (value, key) in extents { try check.extent(value, key) }
    for value in channels {
      try check.require(value % groups == 0, "norm_num_groups", "\(groups) groups do not divide \(value) channels")
    }
    try check.supported((c.in_channels ?? 3) == 3, "in_channels", "\(c.in_channels ?? 3)")
    try check.supported((c.out_channels ?? 3) == 3, "out_channels", "\(c.out_channels ?? 3)")
    try check.supported(["silu", "swish"].contains(c.act_fn ?? "silu"), "act_fn", c.act_fn ?? "")
    attendsDown = try Self.attends(
      c.down_block_types, "down_block_types", plain: "DownEncoderBlock2D", attending: "AttnDownEncoderBlock2D", channels.count, check)
    attendsUp = try Self.attends(
      c.up_block_types, "up_block_types", plain: "UpDecoderBlock2D", attending: "AttnUpDecoderBlock2D", channels.count, check)
  }

  private static func attends(
    _ types: [String]?, _ key: String, plain: String, attending: String, _ levels: Int, _ check: ConfigurationCheck
  ) throws -> [Bool] {
    let types = types ?? Array(repeating: plain, count: levels)
    for type in types { try check.supported(type == plain || type == attending, key, type) }
    try check.require(types.count == levels, key, "it has \(types.count) blocks for \(levels) levels")
    return types.map { $0 == attending }
  }

  /// Pixels a side for each latent a side.
  var spatialScale: Int { 1 << (channels.count - 1) }
}

extension ConfigurationCheck {
  /// - Throws: `ConfigurationError` where latents would be scaled by nothing, or shifted without end.
  func latents(scale: Float, shift: Float = 0) throws {
    try require(scale.isFinite && scale != 0, "scaling_factor", "\(scale) scales nothing")
    try require(shift.isFinite, "shift_factor", "it is not finite")
  }
}
