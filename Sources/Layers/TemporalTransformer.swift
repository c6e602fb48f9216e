import LatentDiffusionWeights
import Tensor

/// Lets the frames of a clip see one another after each block of a transformer that saw them as pictures. With that one it is diffusers'
/// `TransformerSpatioTemporalModel`.
///
/// Source: Blattmann et al. 2023, "Stable Video Diffusion" (arXiv:2311.15127).
struct TemporalTransformer: Sendable {
  private let blocks: [TemporalBasicTransformerBlock]
  private let sinusoids: Timesteps
  private let embedding: TimestepEmbedding
  private let mixer: AlphaBlender

  /// Takes `temporal_transformer_blocks`, `time_pos_embed` and `time_mixer`.
  /// - Parameter inner: the channels of tokens.
  init(_ channels: Int, inner: Int, contextChannels: Int, heads: Int, layers: Int, weights: WeightScope) throws {
    blocks = try (0..<layers).map {
      try TemporalBasicTransformerBlock(
        inner, contextChannels: contextChannels, heads: heads, weights: weights["temporal_transformer_blocks"][$0])
    }
    sinusoids = Timesteps(channels, flipSinToCos: true, frequencyShift: 0)
    embedding = try TimestepEmbedding(channels, embedding: 4 * channels, outputs: channels, weights: weights["time_pos_embed"])
    mixer = try AlphaBlender(weights: weights["time_mixer"])
  }

  /// Adds the projections of a text that every pass needs.
  func read(_ text: inout TextStates, in context: ExecutionContext) throws {
    for block in blocks { try block.read(&text, in: context) }
  }

  /// What is added to the tokens of each frame, `[F, C]`.
  func places(of frames: Int, in context: ExecutionContext) throws -> Tensor {
    try embedding(sinusoids((0..<frames).map(Float.init)), in: context)
  }

  /// What a block makes of tokens, mixed with them.
  ///
  /// - Parameters:
  ///   - index: of the block.
  ///   - x: `[N · F, P, C]`, of P pixels.
  ///   - places: `[F, C]`.
  ///   - text: `[N, L, D]`, of F frames in a row each.
  func callAsFunction(_ index: Int, _ x: Tensor, at places: Tensor, attendingTo text: TextStates, in context: ExecutionContext) throws
    -> Tensor
  {
    let (frames, pixels) = (text.frames, x.shape[1])
    let all = try places.rows(at: (0..<x.shape[0] * pixels).map { $0 / pixels % frames }, in: context)
    let placed = try x.adding(all.reshaped(x.shape), in: context)
    return try mixer(x, blocks[index](placed, attendingTo: text, in: context), in: context)
  }
}

/// A feed-forward net, attention of the frames to one another pixel by pixel, attention to the text, and another feed-forward net. Source: diffusers'
/// `TemporalBasicTransformerBlock`.
struct TemporalBasicTransformerBlock: Sendable {
  private let normIn: LayerNorm
  private let feedForwardIn: FeedForward
  private let norm1: LayerNorm
  private let attn1: Attention
  private let norm2: LayerNorm
  private let attn2: Attention
  private let norm3: LayerNorm
  private let feedForward: FeedForward
  private let path: String

  init(_ channels: Int, contextChannels: Int, heads: Int, weights: WeightScope) throws {
    let headChannels = channels / heads
    normIn = try LayerNorm(channels, weights: weights["norm_in"])
    feedForwardIn = try FeedForward(channels, weights: weights["ff_in"])
    norm1 = try LayerNorm(channels, weights: weights["norm1"])
    attn1 = try Attention(channels, heads: heads, headChannels: headChannels, bias: false, weights: weights["attn1"])
    norm2 = try LayerNorm(channels, weights: weights["norm2"])
    attn2 = try Attention(
      channels, contextChannels: contextChannels, heads: heads, headChannels: headChannels, bias: false, weights: weights["attn2"])
    norm3 = try LayerNorm(channels, weights: weights["norm3"])
    feedForward = try FeedForward(channels, weights: weights["ff"])
    path = weights.prefix
  }

  func read(_ text: inout TextStates, in context: ExecutionContext) throws { try attn2.read(&text, in: context) }

  /// `[N · F, P, C]` and text `[N, L, D]` of F frames in a row each → the same shape. Observers see tokens in this order; within the block the reference has
  /// those of a pixel in a row.
  func callAsFunction(_ x: Tensor, attendingTo text: TextStates, in context: ExecutionContext) throws -> Tensor {
    if context.recomputes { return try context.recomputed { try self(x, attendingTo: text, in: $0) } }
    let clips: Shape = [x.shape[0] / text.frames, text.frames, x.shape[1], x.shape[2]]
    var x = try feedForwardIn(normIn(x, in: context), adding: x, in: context).reshaped(clips)
    x = try attn1(acrossFrames: norm1(x, in: context), adding: x, in: context)
      .reshaped([clips[0] * clips[1], clips[2], clips[3]])
    x = try attn2(norm2(x, in: context), attendingTo: text, adding: x, in: context)
    let result = try feedForward(norm3(x, in: context), adding: x, in: context)
    context.observer?(path, result)
    return result
  }
}
