import Foundation
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The shape of a U-Net of K blocks, complete and checked: diffusers' defaults filled in.
public struct KUNet2DConfiguration: Sendable {
  let inChannels: Int
  let outChannels: Int
  /// The sides of the latents that it was trained on, if the configuration has them.
  let sampleSides: (height: Int, width: Int)?
  let centersInput: Bool
  let flipSinToCos: Bool
  let down: [Block]
  let up: [Block]
  let epsilon: Float
  let activation: Activation
  /// Of the last normalisation; nil: there is none.
  let groups: Int?
  let inputKernel: Int
  let outputKernel: Int
  /// The features of a text token.
  public let contextChannels: Int
  /// The features of what the network is told beside the time (`time_cond_proj_dim`); nil: nothing.
  public let conditionChannels: Int?
  /// Of the time embedding.
  let timeChannels: Int
  /// Of the time embedding's result.
  let timeActivation: Activation

  /// One resolution, on the way down or up.
  struct Block: Sendable {
    let resnets: [ResnetBlockCondNorm2D.Widths]
    /// Heads of the attention after each resnet, and the channels of each; nil: there is no attention.
    var attention: (heads: [Int], headChannels: Int)?
    /// Whether pixels attend to one another, too.
    var attendsToItself = false
    /// Whether the way up gets this block's last features, or takes those of the way down.
    var hasSkip = true
    let isResampled: Bool
  }

  /// What both sides of the latents are multiples of.
  var sideMultiple: Int { 1 << (down.count - 1) }

  /// Whether a configuration is of this kind: its first block on the way down is one of k-diffusion's.
  static func isMeant(by json: Data) -> Bool {
    struct Keys: Decodable { let down_block_types: [String] }
    let names = (try? JSONDecoder().decode(Keys.self, from: json))?.down_block_types ?? []
    return names.contains { down[$0] != nil }
  }

  /// Channels of the highest resolution.
  var baseChannels: Int { down[0].resnets[0].entering }

  /// Groups of a normalisation of so many channels.
  static func groups(of channels: Int) -> Int { channels / groupChannels }

  /// Whether blocks have attention, by their classes.
  private static let down = ["KDownBlock2D": false, "KCrossAttnDownBlock2D": true]
  private static let up = ["KUpBlock2D": false, "KCrossAttnUpBlock2D": true]
  /// The channels of a group of a normalisation, which diffusers' blocks do not let a configuration choose.
  private static let groupChannels = 32

  /// - Parameter json: the `config.json` of a `UNet2DConditionModel` of K blocks.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let check = ConfigurationCheck("UNet2DConditionModel")
    let c = try decodeConfiguration(UNet2DKeys.self, component: check.component, from: json)
    let middle = try decodeConfiguration(MiddleBlock.self, component: check.component, from: json).type
    try check.supported(middle == nil, "mid_block_type", middle ?? "")
    try Self.refuseUnsupported(c, check)
    inChannels = c.in_channels ?? 4
    outChannels = c.out_channels ?? 4
    let sides = c.sample_size?.expanded(to: 2) ?? c.sample_size?.expanded(to: 1).map { $0 + $0 }
    sampleSides = sides.map { ($0[0], $0[1]) }
    centersInput = c.center_input_sample ?? false
    flipSinToCos = c.flip_sin_to_cos ?? true
    epsilon = c.norm_eps ?? 1e-5
    activation = try Self.activation(c.act_fn ?? "silu", "act_fn", check)
    timeActivation = try c.timestep_post_act.map { try Self.activation($0, "timestep_post_act", check) } ?? .none
    groups = c.norm_num_groups
    (inputKernel, outputKernel) = (c.conv_in_kernel ?? 3, c.conv_out_kernel ?? 3)
    conditionChannels = c.time_cond_proj_dim
    let channels = c.block_out_channels ?? [320, 640, 1280, 1280]
    try check.require((1...16).contains(channels.count), "block_out_channels", "\(channels.count) levels")
    for count in channels { try check.extent(count, "block_out_channels") }
    timeChannels = c.time_embedding_dim ?? 2 * channels[0]
    let extents = [
      (inChannels, "in_channels"), (outChannels, "out_channels"), (groups ?? 1, "norm_num_groups"), (inputKernel, "conv_in_kernel"),
      (outputKernel, "conv_out_kernel"), (conditionChannels ?? 1, "time_cond_proj_dim"), (sampleSides?.height ?? 1, "sample_size"),
      (sampleSides?.width ?? 1, "sample_size"), (timeChannels, "time_embedding_dim"),
    ]
    for (value, key) in extents { try check.extent(value, key) }
    try check.require(timeChannels.isMultiple(of: 2), "time_embedding_dim", "\(timeChannels) is odd")
    try check.require(epsilon >= 0 && epsilon.isFinite, "norm_eps", "\(epsilon) is no small positive number")
    try check.require(channels[0].isMultiple(of: groups ?? 1), "norm_num_groups", "it does not divide \(channels[0]) channels")
    for (value, key) in [(inputKernel, "conv_in_kernel"), (outputKernel, "conv_out_kernel")] {
      try check.require(value <= UNet2DConfiguration.largestKernel, key, "\(value) is more than \(UNet2DConfiguration.largestKernel)")
    }
    let levels = try Levels(c, channels: channels, check)
    contextChannels = levels.context
    down = try levels.wayDown()
    up = try levels.wayUp(timeChannels: timeChannels)
    // The lowest block of the way up takes what the lowest of the way down leaves, and so on.
    for (index, block) in up.enumerated() {
      try check.require(
        block.hasSkip == down[down.count - 1 - index].hasSkip, "up_block_types",
        "block \(index) does not take what the way down leaves for it")
    }
  }

  /// diffusers' K blocks look at none of `only_cross_attention`, `resnet_time_scale_shift` and `cross_attention_norm`: each says what they always do.
  private static func refuseUnsupported(_ c: UNet2DKeys, _ check: ConfigurationCheck) throws {
    let absent: [(String?, String)] = [
      (c.encoder_hid_dim_type, "encoder_hid_dim_type"), (c.encoder_hid_dim.map(String.init), "encoder_hid_dim"),
      (c.time_embedding_act_fn, "time_embedding_act_fn"), (c.class_embed_type, "class_embed_type"),
      (c.num_class_embeds.map(String.init), "num_class_embeds"), (c.addition_embed_type, "addition_embed_type"),
      (c.num_attention_heads.map { _ in "numbers" }, "num_attention_heads"),
    ]
    for (value, key) in absent { try check.supported(value == nil, key, value ?? "") }
    let type = c.time_embedding_type ?? "positional"
    try check.supported(type == "fourier", "time_embedding_type", type)
    try check.supported(c.attention_type ?? "default" == "default", "attention_type", c.attention_type ?? "")
    for (value, key) in [
      (c.dual_cross_attention, "dual_cross_attention"), (c.resnet_skip_time_act, "resnet_skip_time_act"),
      (c.class_embeddings_concat, "class_embeddings_concat"),
    ] {
      try check.supported(value != true, key, "true")
    }
    for (value, key) in [
      (c.resnet_out_scale_factor, "resnet_out_scale_factor"), (c.mid_block_scale_factor, "mid_block_scale_factor"),
    ] {
      try check.supported((value ?? 1) == 1, key, "\(value ?? 1)")
    }
  }

  private static func activation(_ name: String, _ key: String, _ check: ConfigurationCheck) throws -> Activation {
    switch name {
    case "silu", "swish": return .silu
    case "gelu": return .gelu
    default: throw ConfigurationError.unsupported(component: check.component, key: key, value: name)
    }
  }

  /// What the levels have, in the order of the way down.
  private struct Levels {
    let channels: [Int]
    let layers: [Int]
    let context: Int
    /// In the order in which each way passes its blocks: diffusers does not turn the list around for the way up. Nil: one head.
    let headChannels: [Int]
    let attendsDown: [Bool]
    let attendsUp: [Bool]
    let check: ConfigurationCheck

    init(_ c: UNet2DKeys, channels: [Int], _ check: ConfigurationCheck) throws {
      let count = channels.count
      func each(_ list: PerLevel<Int>?, _ usual: Int, _ key: String) throws -> [Int] {
        guard let values = (list ?? PerLevel(usual)).expanded(to: count) else {
          throw ConfigurationError.invalid(component: check.component, key: key, reason: "it has not one value for each of \(count) levels")
        }
        for value in values { try check.extent(value, key) }
        return values
      }
      func attends(_ names: [String]?, _ known: [String: Bool], _ key: String) throws -> [Bool] {
        let names = names ?? []
        try check.require(names.count == count, key, "\(names.count) blocks for \(count) levels")
        return try names.map { name in
          guard let attends = known[name] else { throw ConfigurationError.unsupported(component: check.component, key: key, value: name) }
          return attends
        }
      }
      (self.channels, self.check) = (channels, check)
      layers = try each(c.layers_per_block, 2, "layers_per_block")
      let contexts = try each(c.cross_attention_dim, 1280, "cross_attention_dim")
      context = contexts[0]
      try check.supported(Set(contexts).count == 1, "cross_attention_dim", "a list of different numbers")
      headChannels = try each(c.attention_head_dim, 8, "attention_head_dim")
      attendsDown = try attends(c.down_block_types, KUNet2DConfiguration.down, "down_block_types")
      attendsUp = try attends(c.up_block_types, KUNet2DConfiguration.up, "up_block_types")
    }

    func wayDown() throws -> [Block] {
      try channels.indices.map { level in
        let own = channels[level], isLast = level == channels.count - 1
        let resnets = try (0..<layers[level]).map { layer in
          try widths(layer == 0 ? channels[max(0, level - 1)] : own, own, own)
        }
        var block = Block(resnets: resnets, isResampled: !isLast)
        if attendsDown[level] {
          block.attention = try attention(resnets, headChannels[level])
          (block.attendsToItself, block.hasSkip) = (isLast, !isLast)
        }
        return block
      }
    }

    func wayUp(timeChannels: Int) throws -> [Block] {
      let channels = Array(channels.reversed()), layers = Array(layers.reversed())
      return try channels.indices.map { index in
        let own = channels[index], next = channels[min(index + 1, channels.count - 1)]
        let isFirst = attendsUp[index] && own == next && own == timeChannels
        let resnets = try (0..<layers[index]).map { layer in
          let isLast = layer == layers[index] - 1
          let leaving = isLast ? next : own
          // A block without attention changes its width before the second convolution already, but not the groups.
          return try widths(layer > 0 || isFirst ? own : 2 * own, attendsUp[index] ? own : leaving, leaving, groupsOf: own)
        }
        var block = Block(resnets: resnets, isResampled: index < channels.count - 1)
        (block.attendsToItself, block.hasSkip) = (isFirst, !isFirst)
        if attendsUp[index] { block.attention = try attention(resnets, headChannels[index]) }
        return block
      }
    }

    private func widths(_ entering: Int, _ hidden: Int, _ leaving: Int, groupsOf own: Int? = nil) throws -> ResnetBlockCondNorm2D.Widths {
      let groups = (try groups(of: entering), try groups(of: own ?? hidden))
      try check.require(hidden.isMultiple(of: groups.1), "block_out_channels", "\(groups.1) groups do not divide \(hidden) channels")
      return ResnetBlockCondNorm2D.Widths(
        entering: entering, hidden: hidden, leaving: leaving, enteringGroups: groups.0, hiddenGroups: groups.1)
    }

    private func groups(of channels: Int) throws -> Int {
      let groups = KUNet2DConfiguration.groups(of: channels)
      try check.require(
        groups > 0 && channels.isMultiple(of: groups), "block_out_channels", "\(channels) channels make no groups of about 32")
      return groups
    }

    private func attention(_ resnets: [ResnetBlockCondNorm2D.Widths], _ headChannels: Int) throws -> (heads: [Int], headChannels: Int) {
      let heads = try resnets.map { widths in
        _ = try groups(of: widths.leaving)
        try check.require(
          headChannels <= widths.leaving, "attention_head_dim", "heads of \(headChannels) channels for \(widths.leaving) channels")
        return widths.leaving / headChannels
      }
      return (heads, headChannels)
    }
  }
}
