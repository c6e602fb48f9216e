import Tensor
import LatentDiffusionWeights

/// A feature map seen as tokens, through transformer blocks and back. Source: diffusers' `Transformer2DModel`.
public struct Transformer2DModel: Sendable {
  private let norm: GroupNorm
  private let projIn: Projection
  private var blocks: [BasicTransformerBlock]
  private let projOut: Projection
  /// What lets the frames of a clip see one another after each block; nil for pictures.
  private let temporal: TemporalTransformer?
  private let path: String

  /// A linear layer or a 1×1 convolution: the same product, stored in two shapes.
  private enum Projection: Sendable {
    case linear(Linear)
    case convolution(Convolution2D)

    init(_ inChannels: Int, _ outChannels: Int, linear: Bool, weights: WeightScope) throws {
      self =
        linear
        ? .linear(try Linear(inChannels, outChannels, weights: weights))
        : .convolution(try Convolution2D(inChannels, outChannels, kernel: 1, weights: weights))
    }

    func callAsFunction(_ x: Tensor, adding residual: Tensor? = nil, in context: ExecutionContext) throws -> Tensor {
      switch self {
      case .linear(let layer): try layer(x, adding: residual, in: context)
      case .convolution(let layer): try layer(x, adding: residual, in: context)
      }
    }
  }

  /// - Parameters:
  ///   - layers: transformer blocks.
  ///   - linearProjection: whether the projections at both ends are linear layers (SD 2) instead of 1×1 convolutions (SD 1).
  ///   - seesFrames: whether the frames of a clip see one another after each block (`TransformerSpatioTemporalModel`).
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ channels: Int, contextChannels: Int, heads: Int, layers: Int, groups: Int, linearProjection: Bool, onlyCrossAttention: Bool = false,
    seesFrames: Bool = false, weights: WeightScope
  ) throws {
    let inner = channels / heads * heads
    norm = try GroupNorm(groups: groups, channels: channels, epsilon: 1e-6, weights: weights["norm"])
    projIn = try Projection(channels, inner, linear: linearProjection, weights: weights["proj_in"])
    blocks = try (0..<layers).map {
      try BasicTransformerBlock(
        inner, contextChannels: contextChannels, heads: heads, onlyCrossAttention: onlyCrossAttention,
        weights: weights["transformer_blocks"][$0])
    }
    temporal =
      try seesFrames
      ? TemporalTransformer(channels, inner: inner, contextChannels: contextChannels, heads: heads, layers: layers, weights: weights) : nil
    projOut = try Projection(inner, channels, linear: linearProjection, weights: weights["proj_out"])
    path = weights.prefix
  }

  /// Adds the projections of a text that every pass needs.
  /// - Throws: `CancellationError`.
  public func read(_ text: inout TextStates, in context: ExecutionContext) throws {
    for block in blocks { try block.read(&text, in: context) }
    try temporal?.read(&text, in: context)
  }

  /// Lets each token of a block see itself alone where the name of its self-attention is meant.
  public mutating func perturb(where isMeant: (String) -> Bool) {
    for index in blocks.indices { blocks[index].perturb(where: isMeant) }
  }

  /// How much attention each pixel gets in the first block's self-attention, in the mean over the heads: `[N, H, W, C]` → `[N, H, W, 1]`, 1 in the
  /// mean. Nil where there is no such attention.
  /// - Throws: `CancellationError`.
  public func attentionReceived(by x: Tensor, in context: ExecutionContext) throws -> Tensor? {
    guard let first = blocks.first, first.hasSelfAttention else { return nil }
    let (batch, height, width) = (x.shape[0], x.shape[1], x.shape[2]), entered = try projIn(norm(x, in: context), in: context)
    let received = try first.attentionReceived(by: entered.reshaped([batch, height * width, entered.shape.columns]), in: context)
    return received.reshaped([batch, height, width, 1])
  }

  /// Whether its first block has self-attention.
  public var hasSelfAttention: Bool { blocks.first?.hasSelfAttention ?? false }

  /// The attention to the text of every block, of those between frames none.
  public var textAttentions: [Attention] { blocks.map(\.attn2) }

  /// - Parameters:
  ///   - x: `[N, H, W, C]`.
  ///   - text: `[M / F, L, contextChannels]`, M a multiple of N, of F frames in a row each. Each run of N maps sees the same pixels.
  ///   - merging: nil: every pixel is a token of its own in self-attention.
  /// - Returns: `[M, H, W, C]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ x: Tensor, attendingTo text: TextStates, merging: TokenMerging? = nil, in context: ExecutionContext
  ) throws -> Tensor {
    let (batch, height, width) = (text.rows, x.shape[1], x.shape[2])
    let entered = try projIn(norm(x, in: context), in: context)
    var tokens = entered.reshaped([x.shape[0], height * width, entered.shape.columns])
    let choice = merging?.choice(height: height, width: width)
    let places = try temporal?.places(of: text.frames, in: context)
    for (index, block) in blocks.enumerated() {
      tokens = try block(tokens, attendingTo: text, merging: choice, in: context)
      if let temporal, let places { tokens = try temporal(index, tokens, at: places, attendingTo: text, in: context) }
    }
    let leaving = tokens.reshaped([batch, height, width, tokens.shape.columns])
    let result = try projOut(leaving, adding: x.repeated(batch / x.shape[0], in: context), in: context)
    context.observer?(path, result)
    return result
  }
}

/// Self-attention, attention to the text, and a feed-forward net. Source: diffusers' `BasicTransformerBlock`.
public struct BasicTransformerBlock: Sendable {
  private let norm1: LayerNorm
  private let attn1: Attention
  private let norm2: LayerNorm
  fileprivate let attn2: Attention
  private let norm3: LayerNorm
  private let feedForward: FeedForward
  private let onlyCrossAttention: Bool
  private let path: String
  /// Whether each token sees itself alone in self-attention. Source: Ahn et al. 2024, "Perturbed-Attention Guidance" (arXiv:2403.17377).
  private var isPerturbed = false

  /// - Parameter onlyCrossAttention: whether the first attention is to the text, too.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ channels: Int, contextChannels: Int, heads: Int, onlyCrossAttention: Bool, weights: WeightScope) throws {
    let headChannels = channels / heads
    norm1 = try LayerNorm(channels, weights: weights["norm1"])
    attn1 = try Attention(
      channels, contextChannels: onlyCrossAttention ? contextChannels : nil, heads: heads, headChannels: headChannels, bias: false,
      weights: weights["attn1"])
    norm2 = try LayerNorm(channels, weights: weights["norm2"])
    attn2 = try Attention(
      channels, contextChannels: contextChannels, heads: heads, headChannels: headChannels, bias: false, weights: weights["attn2"])
    norm3 = try LayerNorm(channels, weights: weights["norm3"])
    feedForward = try FeedForward(channels, weights: weights["ff"])
    self.onlyCrossAttention = onlyCrossAttention
    path = weights.prefix
  }

  fileprivate var hasSelfAttention: Bool { !onlyCrossAttention }

  fileprivate func attentionReceived(by x: Tensor, in context: ExecutionContext) throws -> Tensor {
    try attn1.received(by: norm1(x, in: context), in: context)
  }

  fileprivate mutating func perturb(where isMeant: (String) -> Bool) {
    if hasSelfAttention, isMeant(attn1.path) { isPerturbed = true }
  }

  /// Adds the projections of a text that every pass needs.
  /// - Throws: `CancellationError`.
  public func read(_ text: inout TextStates, in context: ExecutionContext) throws {
    if onlyCrossAttention { try attn1.read(&text, in: context) }
    try attn2.read(&text, in: context)
  }

  /// `[N, L, C]` and text `[M / F, S, D]` of F frames in a row each, M a multiple of N, → `[M, L, C]`.
  /// - Parameter choice: the tokens to merge during self-attention; nil: none. Attention to the text merges nothing.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ x: Tensor, attendingTo text: TextStates, merging choice: TokenMerging.Choice? = nil, in context: ExecutionContext
  ) throws -> Tensor {
    if context.recomputes { return try context.recomputed { try self(x, attendingTo: text, merging: choice, in: $0) } }
    let rows = text.rows
    var x = onlyCrossAttention ? try x.repeated(rows / x.shape[0], in: context) : x
    if isPerturbed {
      x = try attn1(eachAlone: norm1(x, in: context), adding: x, in: context)
    } else if let choice, !onlyCrossAttention {
      let merge = try choice.merge(x, in: context)
      x = try merge.unmerged(attn1(merge.merged(norm1(x, in: context), in: context), in: context), adding: x, in: context)
    } else {
      x = try attn1(norm1(x, in: context), attendingTo: onlyCrossAttention ? text : nil, adding: x, in: context)
    }
    x = try x.repeated(rows / x.shape[0], in: context)
    x = try attn2(norm2(x, in: context), attendingTo: text, adding: x, in: context)
    let result = try feedForward(norm3(x, in: context), adding: x, in: context)
    context.observer?(path, result)
    return result
  }
}

/// A gated layer four times as wide and a layer back. Source: diffusers' `FeedForward` with `GEGLU`.
public struct FeedForward: Sendable {
  private let proj: Linear
  private let out: Linear
  private let path: String

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ channels: Int, weights: WeightScope) throws {
    proj = try Linear(channels, 8 * channels, isGated: true, weights: weights["net"][0]["proj"])
    out = try Linear(4 * channels, channels, weights: weights["net"][2])
    path = weights.prefix
  }

  /// `[…, C]` → `[…, C]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, adding residual: Tensor, in context: ExecutionContext) throws -> Tensor {
    let gated = try proj(x, in: context)
    // The result of the reference's module is without the residual.
    if let observer = context.observer { observer(path, try out(gated, in: context)) }
    return try out(gated, adding: residual, in: context)
  }
}
