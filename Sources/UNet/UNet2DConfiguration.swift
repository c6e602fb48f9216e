import Foundation
import LatentDiffusionWeights

/// The keys of a U-Net's `config.json`, under diffusers' names. Source: `UNet2DConditionModel`.
struct UNet2DKeys: Decodable, Sendable {
  var _class_name: String?
  var sample_size: PerLevel<Int>?
  var in_channels: Int?
  var out_channels: Int?
  var center_input_sample: Bool?
  var flip_sin_to_cos: Bool?
  var freq_shift: Float?
  var down_block_types: [String]?
  var mid_block_type: String?
  var up_block_types: [String]?
  var only_cross_attention: PerLevel<Bool>?
  var block_out_channels: [Int]?
  var layers_per_block: PerLevel<Int>?
  var downsample_padding: Int?
  var mid_block_scale_factor: Float?
  var act_fn: String?
  var norm_num_groups: Int?
  var norm_eps: Float?
  var cross_attention_dim: PerLevel<Int>?
  var transformer_layers_per_block: TransformerLayers?
  var reverse_transformer_layers_per_block: TransformerLayers?
  var attention_head_dim: PerLevel<Int>?
  var num_attention_heads: PerLevel<Int>?
  var use_linear_projection: Bool?
  var conv_in_kernel: Int?
  var conv_out_kernel: Int?
  var time_cond_proj_dim: Int?
  var dual_cross_attention: Bool?
  var class_embed_type: String?
  var num_class_embeds: Int?
  var class_embeddings_concat: Bool?
  var projection_class_embeddings_input_dim: Int?
  var addition_embed_type: String?
  var addition_time_embed_dim: Int?
  var encoder_hid_dim: Int?
  var encoder_hid_dim_type: String?
  var time_embedding_type: String?
  var time_embedding_act_fn: String?
  var timestep_post_act: String?
  var time_embedding_dim: Int?
  var resnet_time_scale_shift: String?
  var resnet_skip_time_act: Bool?
  var resnet_out_scale_factor: Float?
  var attention_type: String?
  var cross_attention_norm: String?
}

/// `mid_block_type`: absent means the usual block, null means none.
struct MiddleBlock: Decodable {
  let type: String?
  private enum CodingKeys: String, CodingKey { case mid_block_type }

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    type = container.contains(.mid_block_type) ? try container.decode(String?.self, forKey: .mid_block_type) : "UNetMidBlock2DCrossAttn"
  }
}

/// `transformer_layers_per_block`: a number for all levels, or for each level a number or a list with one for each of its layers.
struct TransformerLayers: Decodable, Sendable {
  private let all: Int?
  private let levels: [PerLevel<Int>]

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    all = try? container.decode(Int.self)
    levels = all == nil ? try container.decode([PerLevel<Int>].self) : []
  }

  /// Whether some level has a list.
  var isNested: Bool { levels.contains { $0.expanded(to: 1) == nil || $0.isList } }

  /// For each layer of a level; nil where the lists have other lengths.
  func layers(_ level: Int, of levels: Int, count: Int) -> [Int]? {
    if let all { return Array(repeating: all, count: count) }
    return self.levels.count == levels ? self.levels[level].expanded(to: count) : nil
  }
}

/// A U-Net's shape, complete and checked: diffusers' defaults filled in, a value for every level.
public struct UNet2DConfiguration: Sendable {
  let inChannels: Int
  let outChannels: Int
  /// The sides of the latents that it was trained on, if the configuration has them.
  public let sampleSides: (height: Int, width: Int)?
  let centersInput: Bool
  let flipSinToCos: Bool
  let frequencyShift: Float
  let levels: [Level]
  let middle: Middle
  let groups: Int
  let epsilon: Float
  let linearProjection: Bool
  /// False of `UNet2DModel`, which has no text.
  let attendsToText: Bool
  let inputKernel: Int
  let outputKernel: Int
  let downsamplePadding: Int
  let conditionChannels: Int?
  /// Of the time embedding.
  let timeChannels: Int
  let classEmbedding: ClassEmbedding?
  let addition: Addition?
  /// Of a network for clips with temporal convolutions (`UNet3DConditionModel`); nil: it is another.
  let clips: Clips?
  /// How many frames clips have in a network whose resnets and transformers blend frames (`UNetSpatioTemporalConditionModel`); nil: it is another.
  let frames: Int?

  /// One resolution, on the way down.
  struct Level: Sendable {
    let channels: Int
    let resnets: Int
    let down: Block
    /// The block at this resolution on the way up.
    let up: Block
    let heads: Int
    let contextChannels: Int
    /// Transformer blocks of each layer on the way down, and on the way up.
    let downTransformers: [Int]
    let upTransformers: [Int]
    let onlyCrossAttention: Bool
    /// Of the resnets' normalisations on the way down, and on the way up.
    let epsilon: (down: Float, up: Float)
  }

  enum Block: Sendable {
    case plain, crossAttention
    /// Pixels attend to one another alone: `AttnDownBlock2D` and `AttnUpBlock2D`.
    case pixelAttention
  }

  /// The block at the lowest resolution.
  enum Middle: Sendable {
    case none
    /// `UNetMidBlock2D`, which diffusers gives no layers here: one resnet.
    case resnet
    /// `UNetMidBlock2DCrossAttn`, with so many transformer blocks.
    case crossAttention(layers: Int)
    /// `UNetMidBlock2D` as `UNet2DModel` has it: two resnets, and between them pixels that attend to one another; nil: they do not.
    case pixelAttention(groups: Int?)
  }

  /// What a class is to the time embedding (`class_embed_type`).
  enum ClassEmbedding: Sendable {
    /// A row of a table (`num_class_embeds`).
    case table(count: Int)
    /// A number, embedded as a timestep is.
    case timestep
    /// Added as it is.
    case identity
    /// Two linear layers.
    case projection(inputs: Int)
    /// One linear layer.
    case simpleProjection(inputs: Int)
  }

  /// `text_time`: the pooled text and numbers such as sizes, each of which is embedded as a timestep is. Networks that draw clips are told numbers alone.
  struct Addition: Sendable {
    let numberChannels: Int
    /// Of the pooled text and all numbers.
    let inputs: Int
    var hasText = true
  }

  /// The level of the highest resolution at which tokens attend to one another; nil if there is none.
  var mergingLevel: Int? {
    levels.firstIndex { ($0.down == .crossAttention || $0.up == .crossAttention) && !$0.onlyCrossAttention }
  }

  /// The longer side of the latents that it was trained on, if the configuration has it.
  public var sampleSize: Int? { sampleSides.map { max($0.height, $0.width) } }

  /// Channels of the input.
  public var inputChannels: Int { inChannels }

  /// The features of the pooled text that the network is told beside so many numbers (`time_ids`); nil if it is told none.
  public func pooledFeatures(besideNumbers count: Int) -> Int? { addition.map { max(0, $0.inputs - count * $0.numberChannels) } }

  /// How many numbers (`time_ids`) the network is told where it is told no pooled text; nil if it is told none, or beside a text.
  var numbersAlone: Int? { addition.flatMap { $0.hasText ? nil : $0.inputs / $0.numberChannels } }

  /// How many numbers (`time_ids`) the network is told beside a pooled text of so many features; nil if it is told none, or the text leaves no whole number.
  public func numbers(besidePooled features: Int) -> Int? {
    guard let addition, addition.inputs >= features, (addition.inputs - features).isMultiple(of: addition.numberChannels) else {
      return nil
    }
    return (addition.inputs - features) / addition.numberChannels
  }

  /// Whether it draws clips by layers of its own, without motion modules.
  public var drawsClips: Bool { clips != nil }

  /// Whether the network is told a class.
  public var hasClasses: Bool { classEmbedding != nil }

  /// The number of features of a text token.
  public var contextChannels: Int { levels.first?.contextChannels ?? 0 }

  /// - Parameter json: a U-Net's `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws { try self.init(json: json, of: "UNet2DConditionModel") }

  /// - Parameters:
  ///   - component: what errors call it.
  ///   - hasWayUp: false for ControlNets. The blocks of a way up are then those of the way down, so that a level attends as it does there.
  init(json: Data, of component: String, hasWayUp: Bool = true) throws {
    var c = try decodeConfiguration(UNet2DKeys.self, component: component, from: json)
    if hasWayUp, c.isOfClips {
      try self.init(clips: c)
      return
    }
    if !hasWayUp { c.up_block_types = c.down_block_types?.reversed().map { $0.replacing("Down", with: "Up") } }
    let middle = try decodeConfiguration(MiddleBlock.self, component: component, from: json).type
    try self.init(c, middle: middle, unconditional: nil, ConfigurationCheck(component))
  }

  /// - Parameters:
  ///   - unconditional: what `UNet2DModel` says beside the keys that both classes have; nil for `UNet2DConditionModel`.
  ///   - clips: of `UNet3DConditionModel`.
  ///   - frames: of clips, for `UNetSpatioTemporalConditionModel`.
  /// - Throws: `ConfigurationError`.
  init(
    _ c: UNet2DKeys, middle: String?, unconditional: UNet2DModelKeys?, clips: Clips? = nil, frames: Int? = nil, _ check: ConfigurationCheck
  ) throws {
    try Self.refuseUnsupported(c, check)
    self.clips = clips
    attendsToText = unconditional == nil
    self.frames = frames
    inChannels = c.in_channels ?? 4
    outChannels = c.out_channels ?? 4
    // One number, or the height and the width.
    let sides = c.sample_size?.expanded(to: 2) ?? c.sample_size?.expanded(to: 1).map { $0 + $0 }
    sampleSides = sides.map { ($0[0], $0[1]) }
    centersInput = c.center_input_sample ?? false
    flipSinToCos = c.flip_sin_to_cos ?? true
    frequencyShift = c.freq_shift ?? 0
    groups = c.norm_num_groups ?? 32
    epsilon = c.norm_eps ?? 1e-5
    linearProjection = c.use_linear_projection ?? false
    inputKernel = c.conv_in_kernel ?? 3
    outputKernel = c.conv_out_kernel ?? 3
    downsamplePadding = c.downsample_padding ?? 1
    conditionChannels = c.time_cond_proj_dim
    let extents = [
      (inChannels, "in_channels"), (outChannels, "out_channels"), (groups, "norm_num_groups"), (inputKernel, "conv_in_kernel"),
      (outputKernel, "conv_out_kernel"), (conditionChannels ?? 1, "time_cond_proj_dim"), (sampleSides?.height ?? 1, "sample_size"),
      (sampleSides?.width ?? 1, "sample_size"),
    ]
    for (value, key) in extents { try check.extent(value, key) }
    for (value, key) in [(inputKernel, "conv_in_kernel"), (outputKernel, "conv_out_kernel")] {
      try check.require(value <= Self.largestKernel, key, "\(value) is more than \(Self.largestKernel)")
    }
    try check.require(epsilon >= 0 && epsilon.isFinite, "norm_eps", "\(epsilon) is no small positive number")
    try check.require((0...1).contains(downsamplePadding), "downsample_padding", "\(downsamplePadding) is not 0 or 1")
    levels = try Self.levels(
      c, hasMiddleAttention: unconditional?.add_attention ?? (middle == "UNetMidBlock2DCrossAttn"), attendsToText, epsilon: epsilon,
      ofClips: frames != nil, check)
    self.middle = try unconditional?.middle(of: groups, check) ?? Self.middle(middle, c, levels: levels.count, check)
    // `levels` has at least one.
    timeChannels = c.time_embedding_dim ?? 4 * (levels.first?.channels ?? 0)
    try check.extent(timeChannels, "time_embedding_dim")
    classEmbedding = try Self.classEmbedding(c, check)
    addition = try Self.addition(c, hasText: frames == nil, check)
    try check.supported(
      c.class_embeddings_concat != true || classEmbedding == nil, "class_embeddings_concat", "true")
    for level in levels {
      try check.require(
        level.channels % groups == 0, "norm_num_groups", "\(groups) groups do not divide \(level.channels) channels")
    }
    try check.require(
      (levels.first?.channels ?? 0) >= 2 && frequencyShift.isFinite && Float(levels[0].channels / 2) > frequencyShift, "freq_shift",
      "it leaves no frequencies")
  }

  /// What the names of blocks with motion modules end with (`UNetMotionModel`).
  static let motionSuffix = "Motion"

  /// No known model has larger kernels, and their products would overflow.
  static let largestKernel = 63

  private static func refuseUnsupported(_ c: UNet2DKeys, _ check: ConfigurationCheck) throws {
    let absent: [(String?, String)] = [
      (c.encoder_hid_dim_type, "encoder_hid_dim_type"), (c.time_embedding_act_fn, "time_embedding_act_fn"),
      (c.timestep_post_act, "timestep_post_act"), (c.cross_attention_norm, "cross_attention_norm"),
      (c.encoder_hid_dim.map(String.init), "encoder_hid_dim"),
    ]
    for (value, key) in absent { try check.supported(value == nil, key, value ?? "") }
    let fixed: [(String?, String, String)] = [
      (c.act_fn, "silu", "act_fn"), (c.time_embedding_type, "positional", "time_embedding_type"),
      (c.resnet_time_scale_shift, "default", "resnet_time_scale_shift"), (c.attention_type, "default", "attention_type"),
    ]
    for (value, only, key) in fixed {
      try check.supported(value == nil || value == only || (key == "act_fn" && value == "swish"), key, value ?? "")
    }
    try check.supported(c.dual_cross_attention != true, "dual_cross_attention", "true")
    try check.supported(c.resnet_skip_time_act != true, "resnet_skip_time_act", "true")
    try check.supported((c.resnet_out_scale_factor ?? 1) == 1, "resnet_out_scale_factor", "\(c.resnet_out_scale_factor ?? 1)")
    try check.supported((c.mid_block_scale_factor ?? 1) == 1, "mid_block_scale_factor", "\(c.mid_block_scale_factor ?? 1)")
  }

  private static func middle(_ type: String?, _ c: UNet2DKeys, levels: Int, _ check: ConfigurationCheck) throws -> Middle {
    switch type {
    case nil: return .none
    case "UNetMidBlock2D": return .resnet
    case "UNetMidBlock2DCrossAttn":
      let layers = c.transformer_layers_per_block?.layers(levels - 1, of: levels, count: 1)?.first ?? 1
      try check.extent(layers, "transformer_layers_per_block")
      return .crossAttention(layers: layers)
    case let other?: throw ConfigurationError.unsupported(component: check.component, key: "mid_block_type", value: other)
    }
  }

  private static func classEmbedding(_ c: UNet2DKeys, _ check: ConfigurationCheck) throws -> ClassEmbedding? {
    func inputs() throws -> Int {
      let key = "projection_class_embeddings_input_dim"
      let inputs = c.projection_class_embeddings_input_dim ?? 0
      try check.extent(inputs, key)
      return inputs
    }
    switch c.class_embed_type {
    case nil:
      guard let count = c.num_class_embeds else { return nil }
      try check.extent(count, "num_class_embeds")
      return .table(count: count)
    case "timestep": return .timestep
    case "identity": return .identity
    case "projection": return .projection(inputs: try inputs())
    case "simple_projection": return .simpleProjection(inputs: try inputs())
    case let other?: throw ConfigurationError.unsupported(component: check.component, key: "class_embed_type", value: other)
    }
  }

  private static func addition(_ c: UNet2DKeys, hasText: Bool, _ check: ConfigurationCheck) throws -> Addition? {
    guard let type = c.addition_embed_type else { return nil }
    try check.supported(type == "text_time", "addition_embed_type", type)
    let (channels, inputs) = (c.addition_time_embed_dim ?? 0, c.projection_class_embeddings_input_dim ?? 0)
    try check.extent(channels, "addition_time_embed_dim")
    try check.extent(inputs, "projection_class_embeddings_input_dim")
    let shift = c.freq_shift ?? 0
    try check.require(channels >= 2 && shift.isFinite && Float(channels / 2) > shift, "addition_time_embed_dim", "it leaves no frequencies")
    try check.require(
      hasText || inputs.isMultiple(of: channels), "projection_class_embeddings_input_dim", "it is no multiple of addition_time_embed_dim")
    return Addition(numberChannels: channels, inputs: inputs, hasText: hasText)
  }

  private static func levels(
    _ c: UNet2DKeys, hasMiddleAttention: Bool, _ attendsToText: Bool, epsilon: Float, ofClips: Bool, _ check: ConfigurationCheck
  ) throws -> [Level] {
    let channels = c.block_out_channels ?? [320, 640, 1280, 1280]
    let count = channels.count
    let cross = Array(repeating: "CrossAttn", count: max(0, count - 1))
    let down = c.down_block_types ?? cross.map { $0 + "DownBlock2D" } + ["DownBlock2D"]
    let up = c.up_block_types ?? ["UpBlock2D"] + cross.map { $0 + "UpBlock2D" }
    try check.require((1...16).contains(count), "block_out_channels", "\(count) levels")
    try check.require(down.count == count, "down_block_types", "\(down.count) blocks for \(count) levels")
    try check.require(up.count == count, "up_block_types", "\(up.count) blocks for \(count) levels")
    func each<Value>(_ list: PerLevel<Value>?, _ usual: Value, _ key: String) throws -> [Value] {
      guard let values = (list ?? PerLevel(usual)).expanded(to: count) else {
        throw ConfigurationError.invalid(component: check.component, key: key, reason: "it has not one value for each of \(count) levels")
      }
      return values
    }
    let resnets = try each(c.layers_per_block, 2, "layers_per_block")
    // In this class attention_head_dim is the number of heads, unless num_attention_heads is given: an old misnomer of diffusers.
    let heads = try each(c.num_attention_heads ?? c.attention_head_dim, 8, "attention_head_dim")
    let context = try each(c.cross_attention_dim, 1280, "cross_attention_dim")
    func transformers(_ layers: TransformerLayers?, _ level: Int, count layerCount: Int, _ key: String) throws -> [Int] {
      guard let layers else { return Array(repeating: 1, count: layerCount) }
      guard let found = layers.layers(level, of: count, count: layerCount) else {
        throw ConfigurationError.invalid(component: check.component, key: key, reason: "its lists do not fit the levels and their layers")
      }
      for value in found { try check.extent(value, key) }
      return found
    }
    try check.require(
      c.transformer_layers_per_block?.isNested != true || c.reverse_transformer_layers_per_block != nil,
      "reverse_transformer_layers_per_block", "the lists of transformer_layers_per_block do not say what is on the way up")
    let only = try each(c.only_cross_attention, false, "only_cross_attention")
    return try (0..<count).map { i in
      let values = [
        (channels[i], "block_out_channels"), (resnets[i], "layers_per_block"), (heads[i], "attention_head_dim"),
        (context[i], "cross_attention_dim"),
      ]
      for (value, key) in values { try check.extent(value, key) }
      let downBlock = try block(down[i], "DownBlock2D", "down_block_types", attendsToText, check)
      let upBlock = try block(up[count - 1 - i], "UpBlock2D", "up_block_types", attendsToText, check)
      // A level without attention may name any number of heads.
      let attends = downBlock != .plain || upBlock != .plain || i == count - 1 && hasMiddleAttention
      try check.require(
        attendsToText && !ofClips || !attends || channels[i].isMultiple(of: heads[i]), "attention_head_dim",
        "it does not divide \(channels[i]) channels")
      try check.require(!attends || heads[i] <= channels[i], "attention_head_dim", "\(heads[i]) heads for \(channels[i]) channels")
      let reversed = c.reverse_transformer_layers_per_block
      return Level(
        channels: channels[i], resnets: resnets[i], down: downBlock, up: upBlock, heads: heads[i], contextChannels: context[i],
        downTransformers: try transformers(
          c.transformer_layers_per_block, i, count: resnets[i], "transformer_layers_per_block"),
        upTransformers: try transformers(
          reversed ?? c.transformer_layers_per_block, reversed == nil ? i : count - 1 - i, count: resnets[i] + 1,
          "reverse_transformer_layers_per_block"),
        onlyCrossAttention: only[i],
        // The blocks of clips have values of their own, which no key says.
        epsilon: ofClips ? (downBlock == .plain ? 1e-5 : 1e-6, 1e-6) : (epsilon, epsilon))
    }
  }

  private static func block(
    _ name: String, _ plain: String, _ key: String, _ attendsToText: Bool, _ check: ConfigurationCheck
  ) throws -> Block {
    // The blocks of a U-Net with motion modules are the same, with an addition.
    let name = name.hasSuffix(motionSuffix) ? name.dropLast(motionSuffix.count) + "2D" : name
    if name == plain { return .plain }
    try check.supported(name == (attendsToText ? "CrossAttn" : "Attn") + plain, key, name)
    return attendsToText ? .crossAttention : .pixelAttention
  }
}
