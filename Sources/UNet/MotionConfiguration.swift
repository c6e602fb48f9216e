import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights

/// The shape of motion modules, complete and checked. Source: diffusers' `MotionAdapter` and `UNetMotionModel`.
public struct MotionConfiguration: Sendable {
  /// The most frames that there are positions for.
  public let frames: Int
  let levels: [Level]
  /// Transformer blocks in the middle; nil: there are no modules.
  let middle: Int?
  let groups: Int

  /// The modules of one resolution.
  struct Level: Sendable {
    let channels: Int
    let heads: Int
    /// Transformer blocks of each module on the way down, and on the way up.
    let down: [Int]
    let up: [Int]
  }

  /// The keys of a motion module's `config.json`, under diffusers' names.
  private struct Keys: Decodable {
    var block_out_channels: [Int]?
    var motion_layers_per_block: PerLevel<Int>?
    var motion_transformer_layers_per_block: TransformerLayers?
    var motion_mid_block_layers_per_block: Int?
    var motion_transformer_layers_per_mid_block: PerLevel<Int>?
    var motion_num_attention_heads: PerLevel<Int>?
    var motion_norm_num_groups: Int?
    var motion_max_seq_length: Int?
    var use_motion_mid_block: Bool?
    var conv_in_channels: Int?
  }

  /// What a U-Net's `config.json` says of the motion modules among its weights.
  private struct NetworkKeys: Decodable {
    var down_block_types: [String]?
    var temporal_transformer_layers_per_block: TransformerLayers?
    var reverse_temporal_transformer_layers_per_block: TransformerLayers?
    var temporal_transformer_layers_per_mid_block: PerLevel<Int>?
    var motion_num_attention_heads: PerLevel<Int>?
    var motion_max_seq_length: Int?
    var use_motion_mid_block: Bool?
    var mid_block_layers: Int?
    var transformer_layers_per_mid_block: PerLevel<Int>?
  }

  /// - Throws: `ComponentError.outOfRange` for more frames than there are positions for.
  func check(frames count: Int) throws(ComponentError) {
    guard (1...frames).contains(count) else {
      throw .outOfRange(component: "The motion module", option: "a number of frames", value: "\(count)", allowed: "from 1 to \(frames)")
    }
  }

  /// - Parameter json: a motion module's `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let check = ConfigurationCheck("MotionAdapter")
    let c = try decodeConfiguration(Keys.self, component: check.component, from: json)
    // Of "PIA", which sees a picture beside the latents.
    try check.supported(c.conv_in_channels == nil, "conv_in_channels", "\(c.conv_in_channels ?? 0)")
    let channels = c.block_out_channels ?? [320, 640, 1280, 1280]
    try check.require((1...16).contains(channels.count), "block_out_channels", "\(channels.count) levels")
    let layers = try Self.each(c.motion_layers_per_block, 2, "motion_layers_per_block", channels.count, check)
    try self.init(
      channels: channels, layers: layers, heads: c.motion_num_attention_heads, transformers: (c.motion_transformer_layers_per_block, nil),
      middle: c.use_motion_mid_block ?? true
        ? (c.motion_mid_block_layers_per_block ?? 1, c.motion_transformer_layers_per_mid_block) : nil,
      groups: c.motion_norm_num_groups ?? 32, frames: c.motion_max_seq_length ?? 32, check)
  }

  /// What a U-Net has among its own weights; nil where it draws pictures.
  /// - Throws: `ConfigurationError`.
  init?(of network: UNet2DConfiguration, json: Data) throws {
    let check = ConfigurationCheck("UNetMotionModel")
    let c = try decodeConfiguration(NetworkKeys.self, component: check.component, from: json)
    guard c.down_block_types?.contains(where: { $0.hasSuffix(UNet2DConfiguration.motionSuffix) }) == true else { return nil }
    try check.supported(
      c.transformer_layers_per_mid_block == nil, "transformer_layers_per_mid_block",
      "\(c.transformer_layers_per_mid_block?.expanded(to: 1) ?? [])")
    try check.supported(c.mid_block_layers ?? 1 == 1, "mid_block_layers", "\(c.mid_block_layers ?? 1)")
    try self.init(
      channels: network.levels.map(\.channels), layers: network.levels.map(\.resnets), heads: c.motion_num_attention_heads,
      transformers: (c.temporal_transformer_layers_per_block, c.reverse_temporal_transformer_layers_per_block),
      middle: c.use_motion_mid_block ?? true ? (1, c.temporal_transformer_layers_per_mid_block) : nil, groups: network.groups,
      frames: c.motion_max_seq_length ?? 32, check)
  }

  private init(
    channels: [Int], layers: [Int], heads: PerLevel<Int>?, transformers: (down: TransformerLayers?, up: TransformerLayers?),
    middle: (modules: Int, transformers: PerLevel<Int>?)?, groups: Int, frames: Int, _ check: ConfigurationCheck
  ) throws {
    let count = channels.count, heads = try Self.each(heads, 8, "motion_num_attention_heads", count, check)
    (self.groups, self.frames) = (groups, frames)
    try check.extent(groups, "motion_norm_num_groups")
    try check.require((1...Self.mostFrames).contains(frames), "motion_max_seq_length", "\(frames) is not from 1 to \(Self.mostFrames)")
    func blocks(_ layers: TransformerLayers?, _ level: Int, count layerCount: Int) throws -> [Int] {
      let key = "motion_transformer_layers_per_block"
      guard let found = layers.map({ $0.layers(level, of: count, count: layerCount) }) ?? Array(repeating: 1, count: layerCount) else {
        throw ConfigurationError.invalid(component: check.component, key: key, reason: "its lists do not fit the levels and their layers")
      }
      for value in found { try check.extent(value, key) }
      return found
    }
    levels = try (0..<count).map { i in
      for (value, key) in [
        (channels[i], "block_out_channels"), (layers[i], "motion_layers_per_block"), (heads[i], "motion_num_attention_heads"),
      ] {
        try check.extent(value, key)
      }
      try check.require(channels[i] % groups == 0, "motion_norm_num_groups", "\(groups) groups do not divide \(channels[i]) channels")
      try check.require(heads[i] <= channels[i], "motion_num_attention_heads", "\(heads[i]) heads for \(channels[i]) channels")
      return Level(
        channels: channels[i], heads: heads[i], down: try blocks(transformers.down, i, count: layers[i]),
        up: try blocks(transformers.up ?? transformers.down, transformers.up == nil ? i : count - 1 - i, count: layers[i] + 1))
    }
    guard let middle else {
      self.middle = nil
      return
    }
    // A U-Net has room for one.
    try check.supported(middle.modules == 1, "motion_mid_block_layers_per_block", "\(middle.modules)")
    guard let own = (middle.transformers ?? PerLevel(1)).expanded(to: 1)?.first else {
      throw ConfigurationError.invalid(
        component: check.component, key: "motion_transformer_layers_per_mid_block", reason: "it has not one value for one module")
    }
    try check.extent(own, "motion_transformer_layers_per_mid_block")
    self.middle = own
  }

  /// No known module has more positions than 64, and their table would grow with it; networks without such a table are not made for more either.
  static let mostFrames = 4096

  private static func each(_ list: PerLevel<Int>?, _ usual: Int, _ key: String, _ count: Int, _ check: ConfigurationCheck) throws -> [Int] {
    guard let values = (list ?? PerLevel(usual)).expanded(to: count) else {
      throw ConfigurationError.invalid(component: check.component, key: key, reason: "it has not one value for each of \(count) levels")
    }
    return values
  }

  /// - Throws: `ComponentError.doesNotFit` where the modules were made for another network.
  func check(_ network: UNet2DConfiguration) throws(ComponentError) {
    func require(_ fits: Bool, _ reason: @autoclosure () -> String) throws(ComponentError) {
      guard fits else { throw .doesNotFit(component: "The motion module", reason: reason()) }
    }
    try require(!network.drawsClips, "this U-Net has layers for the frames of clips already")
    let own = levels.map { "\($0.channels)" }.joined(separator: ", ")
    try require(
      levels.map(\.channels) == network.levels.map(\.channels), "its levels have \(own) channels, and the U-Net's \(network.widths)")
    try require(
      levels.map(\.down.count) == network.levels.map(\.resnets), "it has another number of modules in a level than the U-Net has layers")
    try require(groups == network.groups, "its norms have \(groups) groups, and the U-Net's \(network.groups)")
    guard middle != nil else { return }
    if case .crossAttention = network.middle { return }
    try require(false, "it has a module for the middle, where the U-Net attends to no text")
  }
}
