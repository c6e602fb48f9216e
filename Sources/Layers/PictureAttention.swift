import LatentDiffusionWeights
import Tensor

/// What an IP-Adapter adds to one layer that attends to the text: keys and values of a picture's tokens, for the same queries. Source: Ye et al. 2023
/// (arXiv:2308.06721), diffusers' `IPAdapterAttnProcessor2_0`.
public struct PictureAttention: Sendable {
  private let toK: Linear
  private let toV: Linear
  private let layer: String

  init(of layer: String, _ channels: Int, inner: Int, weights: WeightScope) throws {
    toK = try Linear(channels, inner, bias: false, weights: weights["to_k_ip"])
    toV = try Linear(channels, inner, bias: false, weights: weights["to_v_ip"])
    self.layer = layer
  }

  /// Adds this layer's keys and values of one of a text's pictures.
  /// - Throws: `CancellationError`.
  public func read(_ picture: Int, of text: inout TextStates, in context: ExecutionContext) throws {
    let (tokens, scale) = text.pictures[picture]
    // Attention is linear in its values, so they take the scale once for all passes.
    let values = try toV(tokens, in: context).scaled(by: scale, in: context)
    text.projectedPictures[layer, default: []].append((try toK(tokens, in: context), values))
  }
}
