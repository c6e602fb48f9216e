import LatentDiffusionWeights
import Tensor

/// Attention, then a feed-forward net: the layer of CLIP's two towers. Source: Radford et al. 2021, transformers' `CLIPEncoderLayer`.
public struct CLIPEncoderLayer: Sendable {
  /// What the layers of a tower have in common.
  public struct Configuration: Sendable {
    /// Features of a token (`hidden_size`).
    public let hidden: Int
    /// Features between the two linear layers (`intermediate_size`).
    public let intermediate: Int
    /// Heads of the attention (`num_attention_heads`).
    public let heads: Int
    /// Between the two linear layers (`hidden_act`).
    public let activation: Activation
    /// Of the normalisations (`layer_norm_eps`).
    public let epsilon: Float

    /// - Parameters:
    ///   - hidden: `hidden_size`.
    ///   - intermediate: `intermediate_size`.
    ///   - heads: `num_attention_heads`.
    ///   - activation: `hidden_act`; nil: `quick_gelu`, transformers' default.
    ///   - epsilon: `layer_norm_eps`; nil: 1e-5, transformers' default.
    ///   - check: names the component in errors.
    /// - Throws: `ConfigurationError`.
    public init(hidden: Int, intermediate: Int, heads: Int, activation: String?, epsilon: Float?, _ check: ConfigurationCheck) throws {
      let extents = [(hidden, "hidden_size"), (intermediate, "intermediate_size"), (heads, "num_attention_heads")]
      for (value, key) in extents { try check.extent(value, key) }
      try check.require(hidden % heads == 0, "num_attention_heads", "\(heads) heads do not divide \(hidden) features")
      (self.hidden, self.intermediate, self.heads, self.epsilon) = (hidden, intermediate, heads, epsilon ?? 1e-5)
      try check.require(self.epsilon >= 0 && self.epsilon.isFinite, "layer_norm_eps", "\(self.epsilon) is no small positive number")
      switch activation ?? "quick_gelu" {
      case "quick_gelu": self.activation = .quickGELU
      case "gelu": self.activation = .gelu
      case let other: throw ConfigurationError.unsupported(component: check.component, key: "hidden_act", value: other)
      }
    }
  }

  private let layerNorm1: LayerNorm
  private let selfAttention: Attention
  private let layerNorm2: LayerNorm
  private let fc1: Linear
  private let fc2: Linear
  private let activation: Activation
  private let causal: Bool
  private let path: String

  /// - Parameter causal: whether each token attends only to itself and to earlier tokens, as those of texts do.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: Configuration, causal: Bool, weights: WeightScope) throws {
    let (hidden, epsilon) = (configuration.hidden, configuration.epsilon)
    layerNorm1 = try LayerNorm(hidden, epsilon: epsilon, weights: weights["layer_norm1"])
    selfAttention = try Attention(
      hidden, heads: configuration.heads, headChannels: hidden / configuration.heads, bias: true, naming: .transformers,
      weights: weights["self_attn"])
    layerNorm2 = try LayerNorm(hidden, epsilon: epsilon, weights: weights["layer_norm2"])
    fc1 = try Linear(hidden, configuration.intermediate, weights: weights["mlp"]["fc1"])
    fc2 = try Linear(configuration.intermediate, hidden, weights: weights["mlp"]["fc2"])
    (activation, self.causal, path) = (configuration.activation, causal, weights.prefix)
  }

  /// `[N, L, hidden]` → the same shape.
  ///
  /// - Parameter mask: `[N][L]` of a causal layer: which tokens others see, the first one among them; nil: all.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ x: Tensor, seeing mask: [[Bool]]? = nil, in context: ExecutionContext) throws -> Tensor {
    let normalized = try layerNorm1(x, in: context)
    let attended =
      if let mask {
        try selfAttention(normalized, seeing: mask, adding: x, in: context)
      } else {
        try selfAttention(normalized, causal: causal, adding: x, in: context)
      }
    let hidden = try fc1(layerNorm2(attended, in: context), activation: activation, in: context)
    let result = try fc2(hidden, adding: attended, in: context)
    context.observer?(path, result)
    return result
  }
}
