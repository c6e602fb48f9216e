import LatentDiffusionWeights

/// A U-Net for clips (`UNet3DConditionModel`) is one for pictures with additions to its blocks, so its keys are read as those of such a network.
extension UNet2DConfiguration {
  /// What a network of clips has that one for pictures has not.
  struct Clips: Sendable {
    /// Channels of a head.
    let headChannels: Int
    /// Of the attention of frames to one another after the first convolution, whatever its channels.
    let firstHeads = 8
    /// Frames of a clip where nobody says how many (`TextToVideoSDPipeline`). There are no positions, so there is no limit.
    let usualFrames = 16
  }

  /// What the names of blocks for clips end with.
  fileprivate static let suffix = "3D"
  static let clipClassName = "UNet3DConditionModel"

  /// - Parameter keys: of `UNet3DConditionModel`.
  /// - Throws: `ConfigurationError`.
  init(clips keys: UNet2DKeys) throws {
    let check = ConfigurationCheck(Self.clipClassName), headKey = "attention_head_dim"
    // diffusers refuses heads by their number here. Its pipelines give no guidance to embed.
    try check.supported(keys.num_attention_heads == nil, "num_attention_heads", "a number of heads")
    try check.supported(keys.time_cond_proj_dim == nil, "time_cond_proj_dim", "\(keys.time_cond_proj_dim ?? 0)")
    let asked = keys.attention_head_dim ?? PerLevel(64)
    guard !asked.isList, let headChannels = asked.expanded(to: 1)?.first else {
      throw ConfigurationError.unsupported(component: check.component, key: headKey, value: "one value for each level")
    }
    try check.extent(headChannels, headKey)
    var c = keys
    let channels = c.block_out_channels ?? [320, 640, 1280, 1280], cross = Array(repeating: "CrossAttn", count: max(0, channels.count - 1))
    c.down_block_types = try Self.pictureBlocks(
      c.down_block_types ?? cross.map { $0 + "DownBlock3D" } + ["DownBlock3D"], ending: Self.suffix, "down_block_types", check)
    c.up_block_types = try Self.pictureBlocks(
      c.up_block_types ?? ["UpBlock3D"] + cross.map { $0 + "UpBlock3D" }, ending: Self.suffix, "up_block_types", check)
    for own in channels {
      try check.require(own > 0 && own % headChannels == 0, headKey, "\(headChannels) does not divide \(own) channels")
    }
    // What is a constant in this class.
    (c.num_attention_heads, c.use_linear_projection) = (PerLevel(levels: channels.map { $0 / headChannels }), true)
    (c.flip_sin_to_cos, c.freq_shift, c.cross_attention_dim) = (true, 0, c.cross_attention_dim ?? PerLevel(1024))
    try self.init(c, middle: "UNetMidBlock2DCrossAttn", unconditional: nil, clips: Clips(headChannels: headChannels), check)
  }

  /// The names of blocks for pictures that those for clips are made of.
  /// - Parameter suffix: with which those end.
  static func pictureBlocks(_ names: [String], ending suffix: String, _ key: String, _ check: ConfigurationCheck) throws -> [String] {
    try names.map { name in
      try check.supported(name.hasSuffix(suffix), key, name)
      return name.dropLast(suffix.count) + "2D"
    }
  }
}

extension UNet2DKeys {
  /// Whether they are of a network for clips: by their class, or where it is not said, by the names of their blocks.
  var isOfClips: Bool {
    _class_name.map { $0 == UNet2DConfiguration.clipClassName }
      ?? (down_block_types ?? []).contains { $0.hasSuffix(UNet2DConfiguration.suffix) }
  }
}
