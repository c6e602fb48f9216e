import Tensor
import LatentDiffusionWeights

/// Attention of tokens to tokens, of the same sequence or another. Source: diffusers' `Attention`.
public struct Attention: Sendable {
  private let toQ: Linear
  private let toK: Linear
  private let toV: Linear
  private let toOut: Linear
  private let contextNorm: LayerNorm?
  private let heads: Int
  private let inner: Int
  private let scale: Float
  let path: String
  private let isObserved: Bool
  /// With projections of 8 bits, more than bfloat16 would not make the result more exact.
  private var precision: ProductPrecision { toQ.isQuantized && toK.isQuantized && toV.isQuantized ? .bfloat16 : .float32 }

  /// The names of the four projections, which differ between libraries.
  public enum Naming: Sendable {
    /// `to_q`, `to_k`, `to_v`, `to_out.0`.
    case diffusers
    /// `q_proj`, `k_proj`, `v_proj`, `out_proj`.
    case transformers

    fileprivate func scopes(_ weights: WeightScope) -> [WeightScope] {
      switch self {
      case .diffusers: [weights["to_q"], weights["to_k"], weights["to_v"], weights["to_out"][0]]
      case .transformers: [weights["q_proj"], weights["k_proj"], weights["v_proj"], weights["out_proj"]]
      }
    }
  }

  /// - Parameters:
  ///   - channels: of the querying tokens, and of the result.
  ///   - contextChannels: of the tokens attended to; nil: `channels`.
  ///   - heads: the number of heads.
  ///   - headChannels: of each head.
  ///   - bias: whether the projections to queries, keys and values have one; that of the result always has.
  ///   - normalizesContext: whether the tokens attended to are normalised first (`cross_attention_norm` `layer_norm`). It takes `norm_cross`.
  ///   - isObserved: whether observers receive the result, without the residual; false if the reference's module adds the residual.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ channels: Int, contextChannels: Int? = nil, heads: Int, headChannels: Int, bias: Bool, normalizesContext: Bool = false,
    naming: Naming = .diffusers, isObserved: Bool = true, weights: WeightScope
  ) throws {
    inner = heads * headChannels
    let scopes = naming.scopes(weights)
    toQ = try Linear(channels, inner, bias: bias, weights: scopes[0])
    toK = try Linear(contextChannels ?? channels, inner, bias: bias, weights: scopes[1])
    toV = try Linear(contextChannels ?? channels, inner, bias: bias, weights: scopes[2])
    toOut = try Linear(inner, channels, weights: scopes[3])
    contextNorm = normalizesContext ? try LayerNorm(contextChannels ?? channels, weights: weights["norm_cross"]) : nil
    self.heads = heads
    scale = 1 / Float(headChannels).squareRoot()
    path = weights.prefix
    self.isObserved = isObserved
  }

  /// Adds this layer's keys and values of a text to its projections.
  /// - Throws: `CancellationError`.
  public func read(_ text: inout TextStates, in context: ExecutionContext) throws {
    let (keys, values) = try projected(text.states, in: context)
    (text.projected[path + ".to_k"], text.projected[path + ".to_v"]) = (keys, values)
  }

  private func projected(_ tokens: Tensor, in context: ExecutionContext) throws -> (keys: Tensor, values: Tensor) {
    let tokens = try contextNorm?(tokens, in: context) ?? tokens
    return (try toK(tokens, in: context), try toV(tokens, in: context))
  }

  /// Projections of pictures that this layer attends to beside the text. It takes `to_k_ip` and `to_v_ip`.
  /// - Parameter channels: of the pictures' tokens.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public func pictureAttention(_ channels: Int, weights: WeightScope) throws -> PictureAttention {
    try PictureAttention(of: path, channels, inner: inner, weights: weights)
  }

  /// - Parameters:
  ///   - x: `[N, L, channels]`.
  ///   - text: `[N / F, S, contextChannels]`, of F frames in a row each; nil for self-attention.
  ///   - causal: each token attends only to itself and to earlier tokens.
  ///   - residual: `[N, L, channels]`, added to the result.
  /// - Returns: `[N, L, channels]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ x: Tensor, attendingTo text: TextStates? = nil, causal: Bool = false, adding residual: Tensor? = nil,
    in context: ExecutionContext
  ) throws -> Tensor {
    try out(mixed(x, attendingTo: text, causal: causal, in: context), adding: residual, in: context)
  }

  /// Attention of each token to itself alone: `[N, L, channels]` → `[N, L, channels]`.
  /// - Parameter residual: `[N, L, channels]`, added to the result.
  /// - Throws: `CancellationError`.
  func callAsFunction(eachAlone x: Tensor, adding residual: Tensor, in context: ExecutionContext) throws -> Tensor {
    try out(toV(x, in: context), adding: residual, in: context)
  }

  /// How much attention each token gets of all in self-attention, in the mean over the heads: `[N, L, channels]` → `[N, L]`, 1 in the mean.
  /// - Throws: `CancellationError`.
  func received(by x: Tensor, in context: ExecutionContext) throws -> Tensor {
    try Tensor.attentionReceived(queries: toQ(x, in: context), keys: toK(x, in: context), heads: heads, scale: scale, in: context)
  }

  /// Attention of each token to itself and to earlier ones, of which some are seen by none.
  ///
  /// - Parameters:
  ///   - x: `[N, L, channels]`.
  ///   - mask: `[N][L]`: which tokens are seen.
  ///   - residual: `[N, L, channels]`, added to the result.
  /// - Returns: `[N, L, channels]`.
  /// - Precondition: the mask has a value for each token, and the first one of each sequence is seen.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, seeing mask: [[Bool]], adding residual: Tensor, in context: ExecutionContext) throws -> Tensor {
    let length = x.shape[1], (queries, tokens) = (try toQ(x, in: context), try projected(x, in: context))
    precondition(mask.count == x.shape[0] && mask.allSatisfy { $0.count == length && $0[0] }, "A mask for \(x.shape).")
    func rows(_ tensor: Tensor, _ places: some Sequence<Int>) throws -> Tensor {
      let rows = try tensor.reshaped([mask.count * length, inner]).rows(at: Array(places), in: context)
      return rows.reshaped([1, rows.shape[0], inner])
    }
    var (parts, order): ([Tensor], [Int]) = ([], [])
    for (index, mask) in mask.enumerated() {
      let all = index * length..<(index + 1) * length, seen = all.filter { mask[$0 - all.lowerBound] }
      // Tokens in a row that are not seen see the same seen ones.
      let unseen = Dictionary(grouping: all.filter { !mask[$0 - all.lowerBound] }) { place in seen.count { $0 < place } }
      for (own, others, causal) in [(seen, seen[...], true)] + unseen.map({ ($0.value, seen.prefix($0.key), false) }) {
        parts.append(
          try Tensor.attention(
            queries: rows(queries, own), keys: rows(tokens.keys, others), values: rows(tokens.values, others), heads: heads, scale: scale,
            causal: causal, precision: precision, in: context))
        order += own
      }
    }
    var places = Array(repeating: 0, count: order.count)
    for (place, token) in order.enumerated() { places[token] = place }
    let mixed = try Tensor.concatenated(parts, axis: 1, in: context).reshaped([order.count, inner]).rows(at: places, in: context)
    return try out(mixed.reshaped(queries.shape), adding: residual, in: context)
  }

  /// The last projection. The result of the reference's module is without the residual.
  private func out(_ mixed: Tensor, adding residual: Tensor?, in context: ExecutionContext) throws -> Tensor {
    if isObserved, let observer = context.observer { observer(path, try toOut(mixed, in: context)) }
    return try toOut(mixed, adding: residual, in: context)
  }

  /// Attention of the frames of clips to one another, pixel by pixel.
  ///
  /// - Parameters:
  ///   - x: `[N, F, P, channels]`, of P pixels.
  ///   - positions: `[F, channels]`, added to the tokens of each frame before the projections; nil: none.
  ///   - residual: `[N, F, P, channels]`, added to the result.
  /// - Returns: `[N, F, P, channels]`.
  /// - Precondition: beside positions the projections to queries, keys and values have no bias.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    acrossFrames x: Tensor, at positions: Tensor? = nil, adding residual: Tensor, in context: ExecutionContext
  ) throws -> Tensor {
    // Projections are linear, so those of the positions are the same for all pixels of a frame.
    func projected(_ layer: Linear) throws -> Tensor {
      guard let positions else { return try layer(x, in: context) }
      return try layer(x, shiftedBy: layer(positions, in: context).repeated(x.shape[0], in: context), in: context)
    }
    let mixed = try Tensor.attention(
      acrossFrames: projected(toQ), keys: projected(toK), values: projected(toV), heads: heads, scale: scale, in: context)
    return try out(mixed, adding: residual, in: context)
  }

  /// The values of the tokens attended to, and of pictures beside them, before the last projection. Queries are gone when it returns.
  private func mixed(_ x: Tensor, attendingTo text: TextStates?, causal: Bool, in context: ExecutionContext) throws -> Tensor {
    let own = try toQ(x, in: context)
    // Frames of the same text are one sequence of queries.
    let queries = text.map { own.reshaped([$0.states.shape[0], $0.frames * x.shape[1], inner]) } ?? own
    func attention(_ tokens: (keys: Tensor, values: Tensor)) throws -> Tensor {
      try Tensor.attention(
        queries: queries, keys: tokens.keys, values: tokens.values, heads: heads, scale: scale, causal: causal, precision: precision,
        in: context)
    }
    let values = try attention(known(of: text) ?? projected(text?.states ?? x, in: context))
    return try (text?.projectedPictures[path] ?? []).reduce(values) { try $0.adding(attention($1), in: context) }.reshaped(own.shape)
  }

  /// This layer's keys and values of a text that it has read.
  private func known(of text: TextStates?) -> (keys: Tensor, values: Tensor)? {
    guard let keys = text?.projected[path + ".to_k"], let values = text?.projected[path + ".to_v"] else { return nil }
    return (keys, values)
  }
}
