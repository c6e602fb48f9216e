import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

/// Resnets, each followed by attention if the block has it. The blocks of the way down and of the way up share this.
struct ResnetStack: Sendable {
  private let resnets: [UNetResnet]
  private(set) var attentions: [Transformer2DModel]
  private let pixelAttentions: [PixelAttention]
  private let mergesTokens: Bool
  /// Convolutions along the frames of a clip after each resnet; empty but in a network of clips.
  private let temporalConvolutions: [TemporalConvLayer]
  /// What lets the frames of a clip see one another after each resnet and its attention: motion modules, or a network's own; empty for pictures.
  var frameAttentions: [TransformerTemporalModel]

  /// - Parameters:
  ///   - inChannels: the input channels of each resnet.
  ///   - index: the level. There is no attention if `block` is plain.
  ///   - transformers: the transformer blocks after each resnet.
  ///   - epsilon: of the resnets' normalisations.
  init(
    inChannels: [Int], level index: Int, block: UNet2DConfiguration.Block, transformers: [Int], epsilon: Float,
    configuration: UNet2DConfiguration, weights: WeightScope
  ) throws {
    let level = configuration.levels[index]
    mergesTokens = index == configuration.mergingLevel
    resnets = try inChannels.enumerated().map { index, channels in
      try UNetResnet(channels, level.channels, epsilon: epsilon, configuration: configuration, weights: weights["resnets"][index])
    }
    pixelAttentions =
      try block != .pixelAttention
      ? []
      : inChannels.indices.map { try PixelAttention(level: level, configuration: configuration, weights: weights["attentions"][$0]) }
    attentions =
      block != .crossAttention
      ? []
      : try transformers.enumerated().map { index, layers in
        try Transformer2DModel(
          level: level, layers: layers, configuration: configuration, onlyCrossAttention: level.onlyCrossAttention,
          weights: weights["attentions"][index])
      }
    temporalConvolutions = try configuration.temporalConvolutions(inChannels.count, level: level, weights: weights)
    frameAttentions = try configuration.frameAttentions(attentions.count, level: level, weights: weights)
  }

  var count: Int { resnets.count }

  mutating func perturb(where isMeant: (String) -> Bool) {
    for index in attentions.indices { attentions[index].perturb(where: isMeant) }
  }

  func callAsFunction(_ index: Int, _ inputs: [Tensor], _ pass: UNetPass) throws -> Tensor {
    var x = try resnets[index](inputs, pass)
    if !temporalConvolutions.isEmpty { x = try temporalConvolutions[index](x, frames: pass.frames, in: pass.context) }
    if !pixelAttentions.isEmpty { x = try pixelAttentions[index](x, in: pass.context) }
    if !attentions.isEmpty {
      x = try attentions[index](x, attendingTo: pass.text, merging: mergesTokens ? pass.merging : nil, in: pass.context)
    }
    return frameAttentions.isEmpty ? x : try frameAttentions[index](x, frames: pass.frames, in: pass.windows, in: pass.context)
  }
}

/// A resnet, and what lets the frames of a clip see one another after it where the configuration has such.
struct UNetResnet: Sendable {
  private let spatial: ResnetBlock2D
  private let temporal: TemporalResnetBlock?

  init(_ inChannels: Int, _ channels: Int, epsilon: Float, configuration: UNet2DConfiguration, weights: WeightScope) throws {
    let (time, groups, hasFrames) = (configuration.timeChannels, configuration.groups, configuration.frames != nil)
    spatial = try ResnetBlock2D(
      inChannels, channels, timeChannels: time, groups: groups, epsilon: epsilon,
      weights: hasFrames ? weights["spatial_res_block"] : weights)
    temporal =
      try hasFrames ? TemporalResnetBlock(channels, timeChannels: time, groups: groups, epsilon: epsilon, weights: weights) : nil
  }

  func callAsFunction(_ inputs: [Tensor], _ pass: UNetPass) throws -> Tensor {
    let x = try spatial(inputs, time: pass.time(for: inputs[0]), in: pass.context)
    guard let temporal else { return x }
    return try temporal(x, time: pass.timeOfClips(for: x), frames: pass.frames, in: pass.context)
  }
}

/// The values that all blocks of one pass share.
struct UNetPass {
  /// `[N, T]`, SiLU of the time embedding, for each text.
  let timeOfClips: Tensor
  /// `[N · F, T]`, the same for each frame.
  let time: Tensor
  /// `[N, L, D]`, of F frames each, or of one. Before the first layer that attends to the text, features may have fewer rows: all would be repetitions.
  let text: TextStates
  /// Merges tokens at the highest resolution with self-attention, which has nearly all of its arithmetic.
  let merging: TokenMerging?
  /// F of each clip; 1 for pictures.
  let frames: Int
  /// In which the frames see one another; empty: all see all.
  let windows: [FrameWindow]
  let context: ExecutionContext

  /// - Parameters:
  ///   - time: `[N, T]`, SiLU of the time embedding, for each text.
  ///   - frames: of each clip; nil: as many as a text has.
  init(
    time: Tensor, text: TextStates, merging: TokenMerging?, frames: Int? = nil, windows: [FrameWindow] = [], context: ExecutionContext
  ) throws {
    (timeOfClips, self.text, self.merging, self.context) = (time, text, merging, context)
    (self.frames, self.windows) = (frames ?? text.frames, windows)
    self.time = try time.eachRow(text.frames, in: context)
  }

  /// The rows of the time embedding for the rows of these features.
  func time(for features: Tensor) throws -> Tensor {
    features.shape[0] == time.shape[0] ? time : try time.rows(0..<features.shape[0], in: context)
  }

  /// The same for the clips of these features.
  func timeOfClips(for features: Tensor) throws -> Tensor {
    let clips = features.shape[0] / frames
    return clips == timeOfClips.shape[0] ? timeOfClips : try timeOfClips.rows(0..<clips, in: context)
  }
}

extension Tensor {
  /// Each row `times` times, one after the other: `[N, C]` → `[times · N, C]`.
  fileprivate func eachRow(_ times: Int, in context: ExecutionContext) throws -> Tensor {
    guard times > 1 else { return self }
    let (rows, columns) = (shape[0], shape[1])
    return try Tensor.concatenated(Array(repeating: reshaped([rows, 1, columns]), count: times), axis: 1, in: context)
      .reshaped([rows * times, columns])
  }
}

extension Transformer2DModel {
  init(
    level: UNet2DConfiguration.Level, layers: Int, configuration: UNet2DConfiguration, onlyCrossAttention: Bool = false,
    weights: WeightScope
  ) throws {
    try self.init(
      level.channels, contextChannels: level.contextChannels, heads: level.heads, layers: layers, groups: configuration.groups,
      linearProjection: configuration.linearProjection, onlyCrossAttention: onlyCrossAttention, seesFrames: configuration.frames != nil,
      weights: weights)
  }
}

extension UNet2DConfiguration {
  /// A network of clips has one after each resnet of a level; others have none.
  fileprivate func temporalConvolutions(_ resnets: Int, level: Level, weights: WeightScope) throws -> [TemporalConvLayer] {
    guard drawsClips else { return [] }
    return try (0..<resnets).map { try TemporalConvLayer(level.channels, groups: groups, weights: weights["temp_convs"][$0]) }
  }

  /// A network of clips has one after each attention of a level, with as many heads; others have none.
  fileprivate func frameAttentions(_ attentions: Int, level: Level, weights: WeightScope) throws -> [TransformerTemporalModel] {
    guard drawsClips else { return [] }
    return try (0..<attentions).map {
      try TransformerTemporalModel(
        level.channels, heads: level.heads, headChannels: level.channels / level.heads, groups: groups,
        weights: weights["temp_attentions"][$0])
    }
  }
}

extension PixelAttention {
  /// - Parameter groups: of the normalisation; nil: the network's.
  fileprivate init(level: UNet2DConfiguration.Level, configuration: UNet2DConfiguration, groups: Int? = nil, weights: WeightScope) throws {
    try self.init(
      level.channels, heads: level.heads, groups: groups ?? configuration.groups, epsilon: configuration.epsilon, weights: weights)
  }
}

/// One resolution on the way down. Source: diffusers' `DownBlock2D`, `CrossAttnDownBlock2D` and `AttnDownBlock2D`, and the first two for clips (`3D`).
struct DownBlock: Sendable {
  var stack: ResnetStack
  private let downsampler: Downsample2D?
  private let path: String

  init(index: Int, configuration: UNet2DConfiguration, weights: WeightScope) throws {
    let level = configuration.levels[index]
    let entering = index == 0 ? level.channels : configuration.levels[index - 1].channels
    let inChannels = [entering] + Array(repeating: level.channels, count: level.resnets - 1)
    stack = try ResnetStack(
      inChannels: inChannels, level: index, block: level.down, transformers: level.downTransformers, epsilon: level.epsilon.down,
      configuration: configuration, weights: weights)
    let isLast = index == configuration.levels.count - 1
    downsampler =
      isLast ? nil : try Downsample2D(level.channels, padding: configuration.downsamplePadding, weights: weights["downsamplers"][0])
    path = weights.prefix
  }

  var attentions: [Transformer2DModel] { stack.attentions }

  /// Appends the result of every layer to `skips`, for the way up.
  /// - Parameters:
  ///   - most: the number of skips at which the way down ends.
  ///   - residual: added to the last layer's result where the block has attention, and otherwise after the whole block (T2I-Adapter).
  func callAsFunction(_ x: Tensor, skips: inout [Tensor], upTo most: Int, adding residual: Tensor? = nil, _ pass: UNetPass) throws -> Tensor
  {
    var x = x
    let before = skips.count
    for index in 0..<stack.count where skips.count < most {
      x = try stack(index, [x], pass)
      if let residual, !attentions.isEmpty, index == stack.count - 1 { x = try x.adding(control: residual, in: pass.context) }
      skips.append(x)
    }
    if let downsampler, skips.count < most {
      x = try downsampler(x, in: pass.context)
      skips.append(x)
    }
    let isWhole = skips.count - before == stack.count + (downsampler == nil ? 0 : 1)
    if let residual, attentions.isEmpty, isWhole {
      x = try x.adding(control: residual, in: pass.context)
      skips[skips.count - 1] = x
    }
    pass.context.observer?(path, x)
    return x
  }
}

/// The lowest resolution: a resnet, and perhaps attention and another resnet. Source: diffusers' `UNetMidBlock2DCrossAttn`, `UNetMidBlock2D` and
/// `UNetMidBlock3DCrossAttn`.
struct MidBlock: Sendable {
  private let resnets: [UNetResnet]
  private(set) var attentions: [Transformer2DModel]
  private let pixelAttention: PixelAttention?
  private let temporalConvolutions: [TemporalConvLayer]
  private let path: String
  /// What lets the frames of a clip see one another after the attention; empty for pictures.
  var frameAttentions: [TransformerTemporalModel]

  /// Nil where the configuration has none.
  init?(configuration: UNet2DConfiguration, level: UNet2DConfiguration.Level, weights: WeightScope) throws {
    var (transformers, attentionGroups, count): ([Int], Int?, Int) = ([], nil, 1)
    switch configuration.middle {
    case .none: return nil
    case .resnet: break
    case .crossAttention(let layers): (transformers, count) = ([layers], 2)
    case .pixelAttention(let groups): (attentionGroups, count) = (groups, 2)
    }
    resnets = try (0..<count).map {
      try UNetResnet(
        level.channels, level.channels, epsilon: configuration.epsilon, configuration: configuration, weights: weights["resnets"][$0])
    }
    attentions = try transformers.enumerated().map { index, layers in
      try Transformer2DModel(level: level, layers: layers, configuration: configuration, weights: weights["attentions"][index])
    }
    pixelAttention = try attentionGroups.map {
      try PixelAttention(level: level, configuration: configuration, groups: $0, weights: weights["attentions"][0])
    }
    temporalConvolutions = try configuration.temporalConvolutions(count, level: level, weights: weights)
    frameAttentions = try configuration.frameAttentions(attentions.count, level: level, weights: weights)
    path = weights.prefix
  }

  mutating func perturb(where isMeant: (String) -> Bool) {
    for index in attentions.indices { attentions[index].perturb(where: isMeant) }
  }

  /// - Parameter tell: told how much attention each pixel gets in self-attention, `[N, H, W, 1]`; nil: nobody asks.
  func callAsFunction(_ x: Tensor, _ pass: UNetPass, telling tell: ((Tensor) -> Void)? = nil) throws -> Tensor {
    var x = try resnet(0, x, pass)
    if let tell, let received = try attentions.first?.attentionReceived(by: x, in: pass.context) { tell(received) }
    if let attention = attentions.first { x = try attention(x, attendingTo: pass.text, in: pass.context) }
    if let pixelAttention { x = try pixelAttention(x, in: pass.context) }
    if let frameAttention = frameAttentions.first { x = try frameAttention(x, frames: pass.frames, in: pass.windows, in: pass.context) }
    for index in resnets.indices.dropFirst() { x = try resnet(index, x, pass) }
    pass.context.observer?(path, x)
    return x
  }

  private func resnet(_ index: Int, _ x: Tensor, _ pass: UNetPass) throws -> Tensor {
    let result = try resnets[index]([x], pass)
    return temporalConvolutions.isEmpty ? result : try temporalConvolutions[index](result, frames: pass.frames, in: pass.context)
  }
}

/// One resolution on the way up. Each resnet also takes a skip of the way down. Source: diffusers' `UpBlock2D`, `CrossAttnUpBlock2D` and
/// `AttnUpBlock2D`, and the first two for clips (`3D`).
struct UpBlock: Sendable {
  var stack: ResnetStack
  /// What is done to the inputs of each layer; nil: nothing.
  var entering: SkipScaling?
  private let upsampler: Upsample2D?
  private let path: String
  /// The number of skips that it leaves for the blocks after it.
  let skipsLeft: Int
  private let channels: (entering: Int, own: Int)

  /// - Parameter index: the place on the way up; 0 is the lowest resolution.
  init(index: Int, configuration: UNet2DConfiguration, weights: WeightScope) throws {
    let levels = Array(configuration.levels.reversed())
    let level = levels[index]
    let entering = index == 0 ? level.channels : levels[index - 1].channels
    let below = index == levels.count - 1 ? level.channels : levels[index + 1].channels
    let count = level.resnets + 1
    let inChannels = (0..<count).map { layer in
      (layer == 0 ? entering : level.channels) + (layer == count - 1 ? below : level.channels)
    }
    stack = try ResnetStack(
      inChannels: inChannels, level: levels.count - 1 - index, block: level.up, transformers: level.upTransformers,
      epsilon: level.epsilon.up, configuration: configuration, weights: weights)
    upsampler =
      index == levels.count - 1 ? nil : try Upsample2D(level.channels, weights: weights["upsamplers"][0])
    channels = (entering, level.channels)
    skipsLeft = levels[(index + 1)...].reduce(0) { $0 + $1.resnets + 1 }
    path = weights.prefix
  }

  var attentions: [Transformer2DModel] { stack.attentions }

  /// Channels of what enters the layer that finds so many skips.
  func enteringChannels(skips: Int) -> Int { skips - skipsLeft == stack.count ? channels.entering : channels.own }

  /// Takes its skips from the end of `skips`. Their number says which of its layers is next.
  /// - Parameter rest: the number of skips at which the way up pauses.
  func callAsFunction(_ x: Tensor, skips: inout [Tensor], leaving rest: Int, _ pass: UNetPass) throws -> Tensor {
    var x = x
    while skips.count > max(rest, skipsLeft) {
      let index = stack.count - (skips.count - skipsLeft)
      let skip = skips.removeLast()
      let inputs = [x, try skip.repeated(x.shape[0] / skip.shape[0], in: pass.context)]
      x = try stack(index, entering?(inputs[0], inputs[1], in: pass.context) ?? inputs, pass)
    }
    guard let upsampler, skips.count == skipsLeft else {
      pass.context.observer?(path, x)
      return x
    }
    // The result must have the size of the next skip, which is not twice as large if a side on the way down is odd.
    let size = skips.last.map { (height: $0.shape[1], width: $0.shape[2]) }
    x = try upsampler(x, size: size, in: pass.context)
    pass.context.observer?(path, x)
    return x
  }
}
