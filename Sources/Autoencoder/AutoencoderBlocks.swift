import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

extension AutoencoderShape {
  static let epsilon: Float = 1e-6

  /// - Parameter ofClips: whether frames see one another after it.
  func resnet(_ inChannels: Int, _ outChannels: Int, ofClips: Bool, weights: WeightScope) throws -> AutoencoderResnet {
    try AutoencoderResnet(inChannels, outChannels, groups: groups, ofClips: ofClips, weights: weights)
  }
}

/// A resnet, and what lets the frames of a clip see one another after it in a decoder of clips.
struct AutoencoderResnet: Sendable {
  private let spatial: ResnetBlock2D
  private let temporal: TemporalResnetBlock?
  private static let temporalEpsilon: Float = 1e-5

  init(_ inChannels: Int, _ outChannels: Int, groups: Int, ofClips: Bool, weights: WeightScope) throws {
    spatial = try ResnetBlock2D(
      inChannels, outChannels, timeChannels: nil, groups: groups, epsilon: AutoencoderShape.epsilon,
      weights: ofClips ? weights["spatial_res_block"] : weights)
    temporal =
      try ofClips
      ? TemporalResnetBlock(
        outChannels, timeChannels: nil, groups: groups, epsilon: Self.temporalEpsilon, isSwitched: true, weights: weights) : nil
  }

  /// - Parameter frames: of each clip.
  func callAsFunction(_ inputs: consuming [Tensor], frames: Int = 1, in context: ExecutionContext) throws -> Tensor {
    let x = try spatial(consume inputs, in: context)
    return try temporal?(x, frames: frames, in: context) ?? x
  }
}

/// The lowest resolution: resnet, attention over all pixels, resnet. Source: diffusers' `UNetMidBlock2D`, and `MidBlockTemporalDecoder` of two layers.
struct AutoencoderMidBlock: Sendable {
  private let resnets: [AutoencoderResnet]
  private let attention: PixelAttention?
  private let path: String

  init(_ shape: AutoencoderShape, channels: Int, ofClips: Bool = false, weights: WeightScope) throws {
    resnets = try (0..<2).map { try shape.resnet(channels, channels, ofClips: ofClips, weights: weights["resnets"][$0]) }
    attention = shape.hasAttention ? try PixelAttention(channels, groups: shape.groups, weights: weights["attentions"][0]) : nil
    path = weights.prefix
  }

  /// - Parameter frames: of each clip.
  func callAsFunction(_ x: Tensor, frames: Int = 1, in context: ExecutionContext) throws -> Tensor {
    var x = try resnets[0]([x], frames: frames, in: context)
    if let attention { x = try attention(x, in: context) }
    let result = try resnets[1]([consume x], frames: frames, in: context)
    context.observer?(path, result)
    return result
  }
}

extension AutoencoderShape {
  /// A resnet, and the attention after it at levels that have it. Source: diffusers' `DownEncoderBlock2D`, `AttnDownEncoderBlock2D`, `UpDecoderBlock2D`,
  /// `AttnUpDecoderBlock2D` and `UpBlockTemporalDecoder`.
  fileprivate typealias Layer = (resnet: AutoencoderResnet, attention: PixelAttention?)

  fileprivate func layers(
    _ count: Int, _ entering: Int, _ channels: Int, attends: Bool, ofClips: Bool = false, weights: WeightScope
  ) throws -> [Layer] {
    try (0..<count).map { index in
      let resnet = try resnet(index == 0 ? entering : channels, channels, ofClips: ofClips, weights: weights["resnets"][index])
      return (resnet, attends ? try PixelAttention(channels, groups: groups, weights: weights["attentions"][index]) : nil)
    }
  }
}

/// Encodes pictures as features of their latents. Source: diffusers' `Encoder`.
struct Encoder: Sendable {
  private let convIn: Convolution2D
  private let levels: [(layers: [AutoencoderShape.Layer], downsampler: Downsample2D?)]
  private let midBlock: AutoencoderMidBlock
  private let convNormOut: GroupNorm
  private let convOut: Convolution2D
  private let path: String

  /// - Parameter outChannels: mean and variance of the latents, or the latents alone.
  init(_ shape: AutoencoderShape, outChannels: Int, weights: WeightScope) throws {
    let channels = shape.channels
    let last = channels[channels.count - 1]
    convIn = try Convolution2D(3, channels[0], kernel: 3, padding: 1, weights: weights["conv_in"])
    levels = try channels.indices.map { index in
      let scope = weights["down_blocks"][index]
      let layers = try shape.layers(
        shape.resnets, channels[max(0, index - 1)], channels[index], attends: shape.attendsDown[index], weights: scope)
      let isLast = index == channels.count - 1
      return (layers, isLast ? nil : try Downsample2D(channels[index], padding: 0, weights: scope["downsamplers"][0]))
    }
    midBlock = try AutoencoderMidBlock(shape, channels: last, weights: weights["mid_block"])
    convNormOut = try GroupNorm(
      groups: shape.groups, channels: last, epsilon: AutoencoderShape.epsilon, weights: weights["conv_norm_out"])
    convOut = try Convolution2D(last, outChannels, kernel: 3, padding: 1, weights: weights["conv_out"])
    path = weights.prefix
  }

  /// `[N, H, W, 3]` → `[N, h, w, outChannels]`.
  func callAsFunction(_ image: Tensor, in context: ExecutionContext) throws -> Tensor {
    var x = try convIn(image, in: context)
    // Each layer gets the last reference to its input, so that it can reuse the memory.
    for (index, level) in levels.enumerated() {
      for layer in level.layers {
        x = try layer.resnet([consume x], in: context)
        if let attention = layer.attention { x = try attention(x, in: context) }
      }
      if let downsampler = level.downsampler { x = try downsampler(x, in: context) }
      context.observer?("\(path).down_blocks.\(index)", x)
    }
    x = try midBlock(consume x, in: context)
    return try convOut(convNormOut(consume x, activation: .silu, in: context), in: context)
  }
}

/// Decodes latents to pictures, or to the frames of clips. Source: diffusers' `Decoder` and `TemporalDecoder`.
struct Decoder: Sendable {
  private let convIn: Convolution2D
  private let midBlock: AutoencoderMidBlock
  private let levels: [(layers: [AutoencoderShape.Layer], upsampler: Upsample2D?)]
  private let convNormOut: GroupNorm
  private let convOut: Convolution2D
  private let timeConvOut: Convolution2D?
  private let path: String

  init(_ shape: AutoencoderShape, weights: WeightScope) throws {
    let channels = Array(shape.channels.reversed()), ofClips = shape.decodesClips
    convIn = try Convolution2D(shape.latentChannels, channels[0], kernel: 3, padding: 1, weights: weights["conv_in"])
    midBlock = try AutoencoderMidBlock(shape, channels: channels[0], ofClips: ofClips, weights: weights["mid_block"])
    levels = try channels.indices.map { index in
      let scope = weights["up_blocks"][index]
      let layers = try shape.layers(
        shape.resnets + 1, channels[max(0, index - 1)], channels[index], attends: shape.attendsUp[index], ofClips: ofClips,
        weights: scope)
      let isLast = index == channels.count - 1
      return (layers, isLast ? nil : try Upsample2D(channels[index], weights: scope["upsamplers"][0]))
    }
    let last = channels[channels.count - 1]
    convNormOut = try GroupNorm(
      groups: shape.groups, channels: last, epsilon: AutoencoderShape.epsilon, weights: weights["conv_norm_out"])
    convOut = try Convolution2D(last, 3, kernel: 3, padding: 1, weights: weights["conv_out"])
    timeConvOut = try ofClips ? Convolution2D(3, 3, frames: 3, weights: weights["time_conv_out"]) : nil
    path = weights.prefix
  }

  /// `[N, h, w, latentChannels]` → `[N, H, W, 3]`.
  /// - Parameters:
  ///   - frames: of each clip, in a row.
  ///   - mix: what becomes of the features before each level and after the last.
  func callAsFunction(
    _ latents: Tensor, frames: Int = 1, mixing mix: ((Tensor) throws -> Tensor)? = nil, in context: ExecutionContext
  ) throws -> Tensor {
    var x = try midBlock(convIn(latents, in: context), frames: frames, in: context)
    for (index, level) in levels.enumerated() {
      if let mix { x = try mix(x) }
      for layer in level.layers {
        x = try layer.resnet([consume x], frames: frames, in: context)
        if let attention = layer.attention { x = try attention(x, in: context) }
      }
      if let upsampler = level.upsampler { x = try upsampler(consume x, in: context) }
      context.observer?("\(path).up_blocks.\(index)", x)
    }
    if let mix { x = try mix(x) }
    let pictures = try convOut(convNormOut(consume x, activation: .silu, in: context), in: context), shape = pictures.shape
    guard let timeConvOut else { return pictures }
    return try timeConvOut(pictures.reshaped([shape[0] / frames, frames, shape[1] * shape[2], shape[3]]), in: context).reshaped(shape)
  }
}
