import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

extension AutoencoderKLConfiguration {
  static let epsilon: Float = 1e-6

  func resnet(_ inChannels: Int, _ outChannels: Int, weights: WeightScope) throws -> ResnetBlock2D {
    try ResnetBlock2D(inChannels, outChannels, timeChannels: nil, groups: groups, epsilon: Self.epsilon, weights: weights)
  }
}

/// The lowest resolution: resnet, attention over all pixels, resnet. Source: diffusers' `UNetMidBlock2D`.
struct AutoencoderMidBlock: Sendable {
  private let resnets: [ResnetBlock2D]
  private let attention: PixelAttention?
  private let path: String

  init(_ configuration: AutoencoderKLConfiguration, channels: Int, weights: WeightScope) throws {
    resnets = try (0..<2).map { try configuration.resnet(channels, channels, weights: weights["resnets"][$0]) }
    attention =
      configuration.hasAttention ? try PixelAttention(channels, groups: configuration.groups, weights: weights["attentions"][0]) : nil
    path = weights.prefix
  }

  func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    var x = try resnets[0]([x], in: context)
    if let attention { x = try attention(x, in: context) }
    let result = try resnets[1]([consume x], in: context)
    context.observer?(path, result)
    return result
  }
}

/// Encodes pictures as the moments of their latents. Source: diffusers' `Encoder`.
struct Encoder: Sendable {
  private let convIn: Convolution2D
  private let levels: [(resnets: [ResnetBlock2D], downsampler: Downsample2D?)]
  private let midBlock: AutoencoderMidBlock
  private let convNormOut: GroupNorm
  private let convOut: Convolution2D
  private let path: String

  init(_ configuration: AutoencoderKLConfiguration, weights: WeightScope) throws {
    let channels = configuration.channels
    let last = channels[channels.count - 1]
    convIn = try Convolution2D(3, channels[0], kernel: 3, padding: 1, weights: weights["conv_in"])
    levels = try channels.indices.map { index in
      let block = weights["down_blocks"][index]
      let entering = index == 0 ? channels[0] : channels[index - 1]
      let resnets = try (0..<configuration.resnets).map {
        try configuration.resnet($0 == 0 ? entering : channels[index], channels[index], weights: block["resnets"][$0])
      }
      let isLast = index == channels.count - 1
      return (resnets, isLast ? nil : try Downsample2D(channels[index], padding: 0, weights: block["downsamplers"][0]))
    }
    midBlock = try AutoencoderMidBlock(configuration, channels: last, weights: weights["mid_block"])
    convNormOut = try GroupNorm(
      groups: configuration.groups, channels: last, epsilon: AutoencoderKLConfiguration.epsilon, weights: weights["conv_norm_out"])
    convOut = try Convolution2D(last, 2 * configuration.latentChannels, kernel: 3, padding: 1, weights: weights["conv_out"])
    path = weights.prefix
  }

  /// `[N, H, W, 3]` → `[N, h, w, 2 · latentChannels]`.
  func callAsFunction(_ image: Tensor, in context: ExecutionContext) throws -> Tensor {
    var x = try convIn(image, in: context)
    // Each layer gets the last reference to its input, so that it can reuse the memory.
    for (index, level) in levels.enumerated() {
      for resnet in level.resnets { x = try resnet([consume x], in: context) }
      if let downsampler = level.downsampler { x = try downsampler(x, in: context) }
      context.observer?("\(path).down_blocks.\(index)", x)
    }
    x = try midBlock(consume x, in: context)
    return try convOut(convNormOut(consume x, activation: .silu, in: context), in: context)
  }
}

/// Decodes latents to pictures. Source: diffusers' `Decoder`.
struct Decoder: Sendable {
  private let convIn: Convolution2D
  private let midBlock: AutoencoderMidBlock
  private let levels: [(resnets: [ResnetBlock2D], upsampler: Upsample2D?)]
  private let convNormOut: GroupNorm
  private let convOut: Convolution2D
  private let path: String

  init(_ configuration: AutoencoderKLConfiguration, weights: WeightScope) throws {
    let channels = Array(configuration.channels.reversed())
    convIn = try Convolution2D(configuration.latentChannels, channels[0], kernel: 3, padding: 1, weights: weights["conv_in"])
    midBlock = try AutoencoderMidBlock(configuration, channels: channels[0], weights: weights["mid_block"])
    levels = try channels.indices.map { index in
      let block = weights["up_blocks"][index]
      let entering = index == 0 ? channels[0] : channels[index - 1]
      let resnets = try (0..<configuration.resnets + 1).map {
        try configuration.resnet($0 == 0 ? entering : channels[index], channels[index], weights: block["resnets"][$0])
      }
      let isLast = index == channels.count - 1
      return (resnets, isLast ? nil : try Upsample2D(channels[index], weights: block["upsamplers"][0]))
    }
    let last = channels[channels.count - 1]
    convNormOut = try GroupNorm(
      groups: configuration.groups, channels: last, epsilon: AutoencoderKLConfiguration.epsilon, weights: weights["conv_norm_out"])
    convOut = try Convolution2D(last, 3, kernel: 3, padding: 1, weights: weights["conv_out"])
    path = weights.prefix
  }

  /// `[N, h, w, latentChannels]` → `[N, H, W, 3]`.
  func callAsFunction(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    var x = try midBlock(convIn(latents, in: context), in: context)
    for (index, level) in levels.enumerated() {
      for resnet in level.resnets { x = try resnet([consume x], in: context) }
      if let upsampler = level.upsampler { x = try upsampler(consume x, in: context) }
      context.observer?("\(path).up_blocks.\(index)", x)
    }
    return try convOut(convNormOut(consume x, activation: .silu, in: context), in: context)
  }
}
