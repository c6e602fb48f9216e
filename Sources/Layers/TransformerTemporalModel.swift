import Foundation
import LatentDiffusionWeights
import Tensor

/// Lets the frames of a clip see one another: a normalisation over all frames, then blocks in which the frames attend to one another pixel by pixel.
///
/// Tokens stay where the pixels of the frames are. Source: Guo et al. 2023 (arXiv:2307.04725) and Wang et al. 2023 (arXiv:2308.06571), diffusers'
/// `AnimateDiffTransformer3D`, which tells frames apart by their positions, and `TransformerTemporalModel`, which does not.
public struct TransformerTemporalModel: Sendable {
  private let norm: GroupNorm
  private let projIn: Linear
  private let blocks: [FrameTransformerBlock]
  private let projOut: Linear
  private let path: String

  /// - Parameters:
  ///   - headChannels: of each head.
  ///   - layers: transformer blocks.
  ///   - positions: the most frames that there are positions for; nil: there are none.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ channels: Int, heads: Int, headChannels: Int, layers: Int = 1, groups: Int, positions: Int? = nil, weights: WeightScope
  ) throws {
    let inner = heads * headChannels
    norm = try GroupNorm(groups: groups, channels: channels, epsilon: 1e-6, weights: weights["norm"])
    projIn = try Linear(channels, inner, weights: weights["proj_in"])
    blocks = try (0..<layers).map {
      try FrameTransformerBlock(inner, heads: heads, positions: positions, weights: weights["transformer_blocks"][$0])
    }
    projOut = try Linear(inner, channels, weights: weights["proj_out"])
    path = weights.prefix
  }

  /// - Parameters:
  ///   - x: `[N · F, H, W, C]`, the frames of a clip in a row.
  ///   - frames: F, at most as many as there are positions for, where there are some.
  ///   - windows: in which the frames see one another, each of at most as many; empty: all see all.
  /// - Returns: the same shape.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, frames: Int, in windows: [FrameWindow] = [], in context: ExecutionContext) throws -> Tensor {
    let (clips, height, width, channels) = (x.shape[0] / frames, x.shape[1], x.shape[2], x.shape[3])
    let normalized = try norm(x.reshaped([clips, frames * height, width, channels]), in: context)
    var tokens = try projIn(normalized.reshaped([clips, frames, height * width, channels]), in: context)
    for block in blocks { tokens = try block(tokens, in: windows, in: context) }
    let result = try projOut(tokens.reshaped([x.shape[0], height, width, tokens.shape.columns]), adding: x, in: context)
    context.observer?(path, result)
    return result
  }
}

/// Two attentions of the frames to one another, and a feed-forward net. Source: diffusers' `BasicTransformerBlock` with `double_self_attention` and perhaps
/// sinusoidal `positional_embeddings`, which are added to what is normalised.
struct FrameTransformerBlock: Sendable {
  private let norm1: LayerNorm
  private let attn1: Attention
  private let norm2: LayerNorm
  private let attn2: Attention
  private let norm3: LayerNorm
  private let feedForward: FeedForward
  private let positions: Positions?
  private let path: String

  /// - Parameter positions: the most frames that there are positions for; nil: there are none.
  init(_ channels: Int, heads: Int, positions: Int?, weights: WeightScope) throws {
    func attention(_ name: String) throws -> Attention {
      try Attention(channels, heads: heads, headChannels: channels / heads, bias: false, weights: weights[name])
    }
    (norm1, attn1) = (try LayerNorm(channels, weights: weights["norm1"]), try attention("attn1"))
    (norm2, attn2) = (try LayerNorm(channels, weights: weights["norm2"]), try attention("attn2"))
    (norm3, feedForward) = (try LayerNorm(channels, weights: weights["norm3"]), try FeedForward(channels, weights: weights["ff"]))
    self.positions = try positions.map { try Positions(channels, frames: $0, weights: weights["pos_embed"]) }
    path = weights.prefix
  }

  /// `[N, F, P, C]` → the same shape. Observers see tokens in this order; the reference has those of a pixel in a row.
  func callAsFunction(_ x: Tensor, in windows: [FrameWindow], in context: ExecutionContext) throws -> Tensor {
    if context.recomputes { return try context.recomputed { try self(x, in: windows, in: $0) } }
    let x = try windows.isEmpty ? attended(x, in: context) : attended(x, in: windows, in: context)
    let result = try feedForward(norm3(x, in: context), adding: x, in: context)
    context.observer?(path, result)
    return result
  }

  private func attended(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let positions = try positions?(x.shape[1], in: context)
    let x = try attn1(acrossFrames: norm1(x, in: context), at: positions, adding: x, in: context)
    return try attn2(acrossFrames: norm2(x, in: context), at: positions, adding: x, in: context)
  }

  /// Positions begin anew in each window. Source: diffusers' `FreeNoiseTransformerBlock`.
  private func attended(_ x: Tensor, in windows: [FrameWindow], in context: ExecutionContext) throws -> Tensor {
    var sum = Tensor.zeros(x.shape, like: x)
    for window in windows { try sum.addFrames(attended(x.frames(window, in: context), in: context), of: window, in: context) }
    return sum
  }
}

/// Sinusoids of the frames' numbers, sines and cosines in turns: those of the file, which may be rounded, or exact ones. Source: diffusers'
/// `SinusoidalPositionalEmbedding`.
private struct Positions: Sendable {
  private let stored: Parameter<Tensor>?
  /// `[frames, channels]`.
  private let exact: Tensor

  /// Takes `pe`, `[1, frames, channels]`, where the file has it.
  init(_ channels: Int, frames: Int, weights: WeightScope) throws {
    stored = weights.has("pe") ? try weights.vector("pe", shape: [1, frames, channels]) : nil
    exact = Self.sinusoids(channels, frames: frames)
  }

  /// `[count, channels]`.
  func callAsFunction(_ count: Int, in context: ExecutionContext) throws -> Tensor {
    try (stored?.value(in: context).reshaped(exact.shape) ?? exact).rows(0..<count, in: context)
  }

  private static func sinusoids(_ channels: Int, frames: Int) -> Tensor {
    // In float32, in the reference's order.
    let frequencies = (0..<channels).map { exp(Float($0 / 2 * 2) * (-Float(log(10000.0)) / Float(channels))) }
    let elements = (0..<frames).flatMap { frame in
      frequencies.enumerated().map { $0 % 2 == 0 ? sin(Float(frame) * $1) : cos(Float(frame) * $1) }
    }
    return Tensor(elements, shape: [frames, channels])
  }
}
