import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// Attention of pixels to one another, where the block has it, and to the text. No feed-forward net follows. Source: diffusers' `KAttentionBlock`.
struct KAttentionBlock: Sendable {
  private let own: (norm: AdaGroupNorm, attention: Attention)?
  private let norm2: AdaGroupNorm
  let attn2: Attention
  private let path: String

  /// - Parameters:
  ///   - channels: of the pixels.
  ///   - heads: of so many channels each.
  ///   - attendsToItself: whether pixels attend to one another.
  init(
    _ channels: Int, heads: Int, headChannels: Int, groups: Int, attendsToItself: Bool, _ configuration: KUNet2DConfiguration,
    weights: WeightScope
  ) throws {
    func norm(_ name: String) throws -> AdaGroupNorm {
      try AdaGroupNorm(configuration.timeChannels, groups: groups, channels: channels, weights: weights[name])
    }
    own =
      try attendsToItself
      ? (norm("norm1"), Attention(channels, heads: heads, headChannels: headChannels, bias: true, weights: weights["attn1"])) : nil
    norm2 = try norm("norm2")
    attn2 = try Attention(
      channels, contextChannels: configuration.contextChannels, heads: heads, headChannels: headChannels, bias: true,
      normalizesContext: true, weights: weights["attn2"])
    path = weights.prefix
  }

  /// `[N, H, W, C]` → the same shape.
  func callAsFunction(_ x: Tensor, _ pass: UNetPass) throws -> Tensor {
    let tokens = Shape([x.shape[0], x.shape[1] * x.shape[2], x.shape[3]]), shape = x.shape
    var x = x
    if let own {
      let normalized = try own.norm([x], embedding: pass.time, in: pass.context).reshaped(tokens)
      x = try own.attention(normalized, adding: x.reshaped(tokens), in: pass.context).reshaped(shape)
    }
    let normalized = try norm2([x], embedding: pass.time, in: pass.context).reshaped(tokens)
    let result = try attn2(normalized, attendingTo: pass.text, adding: x.reshaped(tokens), in: pass.context).reshaped(shape)
    pass.context.observer?(path, result)
    return result
  }
}

/// Resnets, each followed by attention if the block has it.
private struct KStack: Sendable {
  private let resnets: [ResnetBlockCondNorm2D]
  let attentions: [KAttentionBlock]

  init(_ block: KUNet2DConfiguration.Block, _ configuration: KUNet2DConfiguration, weights: WeightScope) throws {
    resnets = try block.resnets.enumerated().map { index, widths in
      try ResnetBlockCondNorm2D(
        widths, embedding: configuration.timeChannels, epsilon: configuration.epsilon, activation: configuration.activation,
        weights: weights["resnets"][index])
    }
    guard let attention = block.attention else {
      attentions = []
      return
    }
    attentions = try block.resnets.indices.map { index in
      let channels = block.resnets[index].leaving
      return try KAttentionBlock(
        channels, heads: attention.heads[index], headChannels: attention.headChannels, groups: KUNet2DConfiguration.groups(of: channels),
        attendsToItself: block.attendsToItself, configuration, weights: weights["attentions"][index])
    }
  }

  /// Inputs that are joined along channels → `[N, H, W, C]`.
  func callAsFunction(_ inputs: [Tensor], _ pass: UNetPass) throws -> Tensor {
    var inputs = inputs
    for (index, resnet) in resnets.enumerated() {
      let x = try resnet(inputs, embedding: pass.time, in: pass.context)
      inputs = [attentions.isEmpty ? x : try attentions[index](x, pass)]
    }
    return inputs[0]
  }
}

/// One resolution on the way down. Source: diffusers' `KDownBlock2D` and `KCrossAttnDownBlock2D`.
struct KDownBlock: Sendable {
  private let stack: KStack
  private let downsampler: KDownsample2D?
  private let leavesSkip: Bool
  private let path: String

  init(_ block: KUNet2DConfiguration.Block, _ configuration: KUNet2DConfiguration, weights: WeightScope) throws {
    stack = try KStack(block, configuration, weights: weights)
    downsampler = block.isResampled ? KDownsample2D(path: weights["downsamplers"][0].prefix) : nil
    (leavesSkip, path) = (block.hasSkip, weights.prefix)
  }

  var attentions: [KAttentionBlock] { stack.attentions }

  /// Appends what it made before it halved the sides to `skips`, for the way up.
  func callAsFunction(_ x: Tensor, skips: inout [Tensor], _ pass: UNetPass) throws -> Tensor {
    var x = try stack([x], pass)
    if leavesSkip { skips.append(x) }
    if let downsampler { x = try downsampler(x, in: pass.context) }
    pass.context.observer?(path, x)
    return x
  }
}

/// One resolution on the way up. Source: diffusers' `KUpBlock2D` and `KCrossAttnUpBlock2D`.
struct KUpBlock: Sendable {
  private let stack: KStack
  private let upsampler: KUpsample2D?
  private let takesSkip: Bool
  private let path: String

  init(_ block: KUNet2DConfiguration.Block, _ configuration: KUNet2DConfiguration, weights: WeightScope) throws {
    stack = try KStack(block, configuration, weights: weights)
    upsampler = block.isResampled ? KUpsample2D(path: weights["upsamplers"][0].prefix) : nil
    (takesSkip, path) = (block.hasSkip, weights.prefix)
  }

  var attentions: [KAttentionBlock] { stack.attentions }

  /// Takes the last of `skips`, if it takes one.
  func callAsFunction(_ x: Tensor, skips: inout [Tensor], _ pass: UNetPass) throws -> Tensor {
    var x = try stack(takesSkip ? [x, skips.removeLast()] : [x], pass)
    if let upsampler { x = try upsampler(x, in: pass.context) }
    pass.context.observer?(path, x)
    return x
  }
}
