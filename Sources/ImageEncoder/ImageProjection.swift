import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// A picture's projected state as some tokens of a text's width. Source: Ye et al. 2023 (arXiv:2308.06721), diffusers' `ImageProjection`, under the
/// names of published IP-Adapters.
public struct ImageProjection: Sendable {
  private let proj: Linear
  private let norm: LayerNorm
  private let tokens: Int
  private let contextChannels: Int

  /// Takes `proj` and `norm`.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ features: Int, tokens: Int, contextChannels: Int, weights: WeightScope) throws {
    proj = try Linear(features, tokens * contextChannels, weights: weights["proj"])
    norm = try LayerNorm(contextChannels, weights: weights["norm"])
    (self.tokens, self.contextChannels) = (tokens, contextChannels)
  }

  /// `[N, features]` → `[N, tokens, contextChannels]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ embeds: Tensor, in context: ExecutionContext) throws -> Tensor {
    try norm(proj(embeds, in: context).reshaped([embeds.shape[0], tokens, contextChannels]), in: context)
  }
}
