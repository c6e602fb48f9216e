import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

/// Resnets, each followed by attention where the block has it, as all blocks of the U-Net share them.
struct ResnetStack: Sendable {
  private let resnets: [ResnetBlock2D]
  let attentions: [Transformer2DModel]
  private let mergesTokens: Bool

  /// - Parameters:
  ///   - inChannels: of each resnet.
  ///   - index: of the level; no attention where `block` is plain.
  init(
    inChannels: [Int], level index: Int, block: UNet2DConfiguration.Block, configuration: UNet2DConfiguration, timeChannels: Int,
    weights: WeightScope
  ) throws {
    let level = configuration.levels[index]
    mergesTokens = index == configuration.mergingLevel
    resnets = try inChannels.enumerated().map { index, channels in
      try ResnetBlock2D(
        channels, level.channels, timeChannels: timeChannels, groups: configuration.groups, epsilon: configuration.epsilon,
        weights: weights["resnets"][index])
    }
    attentions =
      block == .plain
      ? []
      : try inChannels.indices.map {
        try Transformer2DModel(level: level, configuration: configuration, weights: weights["attentions"][$0])
      }
  }

  var count: Int { resnets.count }

  func callAsFunction(_ index: Int, _ inputs: [Tensor], _ pass: UNetPass) throws -> Tensor {
    let x = try resnets[index](inputs, time: pass.time(for: inputs[0]), in: pass.context)
    return attentions.isEmpty
      ? x
      : try attentions[index](
        x, attendingTo: pass.text, merging: mergesTokens ? pass.merging : nil, in: pass.context)
  }
}

/// What is the same for all blocks of one pass.
struct UNetPass {
  /// `[N, T]`, SiLU of the time embedding.
  let time: Tensor
  /// `[N, L, D]`. Features have fewer rows before the first layer that looks at it, where all N would repeat those.
  let text: TextStates
  /// Of the tokens at the highest resolution with self-attention, where nearly all of its arithmetic is.
  let merging: TokenMerging?
  let context: ExecutionContext

  /// The rows of the time embedding that belong to those of some features.
  func time(for features: Tensor) throws -> Tensor {
    features.shape[0] == time.shape[0] ? time : try time.rows(0..<features.shape[0], in: context)
  }
}

extension Transformer2DModel {
  init(level: UNet2DConfiguration.Level, configuration: UNet2DConfiguration, weights: WeightScope) throws {
    try self.init(
      level.channels, contextChannels: level.contextChannels, heads: level.heads, layers: level.transformerLayers,
      groups: configuration.groups,
      linearProjection: configuration.linearProjection, onlyCrossAttention: level.onlyCrossAttention, weights: weights)
  }
}

/// One resolution on the way down. Source: diffusers' `DownBlock2D` and `CrossAttnDownBlock2D`.
struct DownBlock: Sendable {
  private let stack: ResnetStack
  private let downsampler: Downsample2D?
  private let path: String

  init(index: Int, configuration: UNet2DConfiguration, timeChannels: Int, weights: WeightScope) throws {
    let level = configuration.levels[index]
    let entering = index == 0 ? level.channels : configuration.levels[index - 1].channels
    let inChannels = [entering] + Array(repeating: level.channels, count: level.resnets - 1)
    stack = try ResnetStack(
      inChannels: inChannels, level: index, block: level.down, configuration: configuration, timeChannels: timeChannels, weights: weights)
    let isLast = index == configuration.levels.count - 1
    downsampler =
      isLast ? nil : try Downsample2D(level.channels, padding: configuration.downsamplePadding, weights: weights["downsamplers"][0])
    path = weights.prefix
  }

  var attentions: [Transformer2DModel] { stack.attentions }

  /// Appends what every layer gives to `skips`, for the way up.
  /// - Parameter most: skips after which the way down ends.
  func callAsFunction(_ x: Tensor, skips: inout [Tensor], upTo most: Int, _ pass: UNetPass) throws -> Tensor {
    var x = x
    for index in 0..<stack.count where skips.count < most {
      x = try stack(index, [x], pass)
      skips.append(x)
    }
    if let downsampler, skips.count < most {
      x = try downsampler(x, in: pass.context)
      skips.append(x)
    }
    pass.context.observer?(path, x)
    return x
  }
}

/// The lowest resolution: resnet, attention, resnet. Source: diffusers' `UNetMidBlock2DCrossAttn`.
struct MidBlock: Sendable {
  private let resnets: [ResnetBlock2D]
  let attention: Transformer2DModel
  private let path: String

  init(configuration: UNet2DConfiguration, level: UNet2DConfiguration.Level, timeChannels: Int, weights: WeightScope) throws {
    resnets = try (0..<2).map {
      try ResnetBlock2D(
        level.channels, level.channels, timeChannels: timeChannels, groups: configuration.groups, epsilon: configuration.epsilon,
        weights: weights["resnets"][$0])
    }
    attention = try Transformer2DModel(
      level.channels, contextChannels: level.contextChannels, heads: level.heads, layers: level.transformerLayers,
      groups: configuration.groups,
      linearProjection: configuration.linearProjection, weights: weights["attentions"][0])
    path = weights.prefix
  }

  func callAsFunction(_ x: Tensor, _ pass: UNetPass) throws -> Tensor {
    let entered = try resnets[0]([x], time: pass.time(for: x), in: pass.context)
    let attended = try attention(entered, attendingTo: pass.text, in: pass.context)
    let result = try resnets[1]([attended], time: pass.time, in: pass.context)
    pass.context.observer?(path, result)
    return result
  }
}

/// One resolution on the way up; each resnet also takes what the way down left. Source: diffusers' `UpBlock2D` and `CrossAttnUpBlock2D`.
struct UpBlock: Sendable {
  private let stack: ResnetStack
  private let upsampler: Upsample2D?
  private let path: String
  /// Skips that it leaves for the blocks after it.
  let skipsLeft: Int
  private let channels: (entering: Int, own: Int)

  /// - Parameter index: on the way up: 0 is the lowest resolution.
  init(index: Int, configuration: UNet2DConfiguration, timeChannels: Int, weights: WeightScope) throws {
    let levels = Array(configuration.levels.reversed())
    let level = levels[index]
    let entering = index == 0 ? level.channels : levels[index - 1].channels
    let below = index == levels.count - 1 ? level.channels : levels[index + 1].channels
    let count = level.resnets + 1
    let inChannels = (0..<count).map { layer in
      (layer == 0 ? entering : level.channels) + (layer == count - 1 ? below : level.channels)
    }
    stack = try ResnetStack(
      inChannels: inChannels, level: levels.count - 1 - index, block: level.up, configuration: configuration, timeChannels: timeChannels,
      weights: weights)
    upsampler =
      index == levels.count - 1 ? nil : try Upsample2D(level.channels, weights: weights["upsamplers"][0])
    channels = (entering, level.channels)
    skipsLeft = levels[(index + 1)...].reduce(0) { $0 + $1.resnets + 1 }
    path = weights.prefix
  }

  var attentions: [Transformer2DModel] { stack.attentions }

  /// Channels of what enters the layer that finds so many skips.
  func enteringChannels(skips: Int) -> Int { skips - skipsLeft == stack.count ? channels.entering : channels.own }

  /// Takes its skips from the end of `skips`; how many there are says which of its layers is next.
  /// - Parameter rest: skips that are left where the way up pauses.
  func callAsFunction(_ x: Tensor, skips: inout [Tensor], leaving rest: Int, _ pass: UNetPass) throws -> Tensor {
    var x = x
    while skips.count > max(rest, skipsLeft) {
      let index = stack.count - (skips.count - skipsLeft)
      let skip = skips.removeLast()
      x = try stack(index, [x, skip.repeated(x.shape[0] / skip.shape[0], in: pass.context)], pass)
    }
    guard let upsampler, skips.count == skipsLeft else {
      pass.context.observer?(path, x)
      return x
    }
    // The size to meet is that of the next skip: with odd sides on the way down it is not twice as large.
    let size = skips.last.map { (height: $0.shape[1], width: $0.shape[2]) }
    x = try upsampler(x, size: size, in: pass.context)
    pass.context.observer?(path, x)
    return x
  }
}
