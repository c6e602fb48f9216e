import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// Learnt queries that gather some tokens from all states of a picture. Source: Ye et al. 2023 (arXiv:2308.06721) after Alayrac et al. 2022
/// (Flamingo's resampler), diffusers' `IPAdapterPlusImageProjection`, under the names of published IP-Adapters.
public struct IPAdapterPlusImageProjection: Sendable {
  /// The extents, which follow from the tensors' shapes.
  public struct Configuration: Sendable {
    /// Of the image encoder's states.
    public var features: Int
    /// Inside.
    public var hidden: Int
    /// Tokens of the result.
    public var queries: Int
    /// Blocks.
    public var layers: Int
    /// Features of queries, keys and values: heads of 64.
    public var inner: Int
    /// Between the linear layers of a block.
    public var intermediate: Int
    /// Of the result.
    public var contextChannels: Int

    /// Extents of these values.
    public init(features: Int, hidden: Int, queries: Int, layers: Int, inner: Int, intermediate: Int, contextChannels: Int) {
      (self.features, self.hidden, self.queries, self.layers) = (features, hidden, queries, layers)
      (self.inner, self.intermediate, self.contextChannels) = (inner, intermediate, contextChannels)
    }

    /// Features of a head, in all published adapters.
    public static let headChannels = 64
  }

  private let latents: Parameter<Tensor>
  private let projIn: Linear
  private let blocks: [Block]
  private let projOut: Linear
  private let normOut: LayerNorm

  /// Takes `latents`, `proj_in`, `layers`, `proj_out` and `norm_out`.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ c: Configuration, weights: WeightScope) throws {
    latents = try weights.vector("latents", shape: [1, c.queries, c.hidden])
    projIn = try Linear(c.features, c.hidden, weights: weights["proj_in"])
    blocks = try (0..<c.layers).map { try Block(c, weights: weights["layers"][$0]) }
    projOut = try Linear(c.hidden, c.contextChannels, weights: weights["proj_out"])
    normOut = try LayerNorm(c.contextChannels, weights: weights["norm_out"])
  }

  /// `[N, L, features]` → `[N, queries, contextChannels]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ states: Tensor, in context: ExecutionContext) throws -> Tensor {
    let states = try projIn(states, in: context)
    var x = try latents.value.repeated(states.shape[0], in: context)
    for block in blocks { x = try block(x, attendingTo: states, in: context) }
    return try normOut(projOut(x, in: context), in: context)
  }

  /// Attention to a picture's states and the queries' own, then a feed-forward net. Source: `IPAdapterPlusImageProjectionBlock`.
  private struct Block: Sendable {
    let norm1: LayerNorm
    let norm2: LayerNorm
    let toQ: Linear
    /// Keys and values in one product.
    let toKV: Linear
    let toOut: Linear
    let norm: LayerNorm
    let linear1: Linear
    let linear2: Linear
    let inner: Int

    init(_ c: Configuration, weights: WeightScope) throws {
      let (attention, feedForward) = (weights[0], weights[1])
      norm1 = try LayerNorm(c.hidden, weights: attention["norm1"])
      norm2 = try LayerNorm(c.hidden, weights: attention["norm2"])
      toQ = try Linear(c.hidden, c.inner, bias: false, weights: attention["to_q"])
      toKV = try Linear(c.hidden, 2 * c.inner, bias: false, weights: attention["to_kv"])
      toOut = try Linear(c.inner, c.hidden, bias: false, weights: attention["to_out"])
      norm = try LayerNorm(c.hidden, weights: feedForward[0])
      linear1 = try Linear(c.hidden, c.intermediate, bias: false, weights: feedForward[1])
      linear2 = try Linear(c.intermediate, c.hidden, bias: false, weights: feedForward[3])
      inner = c.inner
    }

    func callAsFunction(_ x: Tensor, attendingTo states: Tensor, in context: ExecutionContext) throws -> Tensor {
      let queries = try norm2(x, in: context)
      let both = try toKV(.concatenated([norm1(states, in: context), queries], axis: 1, in: context), in: context)
      let mixed = try Tensor.attention(
        queries: toQ(queries, in: context), keys: both.channels(0..<inner, in: context),
        values: both.channels(inner..<2 * inner, in: context), heads: inner / Configuration.headChannels,
        scale: 1 / Float(Configuration.headChannels).squareRoot(), in: context)
      let attended = try toOut(mixed, adding: x, in: context)
      return try linear2(linear1(norm(attended, in: context), activation: .gelu, in: context), adding: attended, in: context)
    }
  }
}
