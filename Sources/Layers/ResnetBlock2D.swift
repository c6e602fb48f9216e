import Tensor
import LatentDiffusionWeights

/// Two convolutions with a residual path, and the time between them. Source: He et al. 2016, diffusers' `ResnetBlock2D`.
public struct ResnetBlock2D: Sendable {
  private let norm1: GroupNorm
  private let conv1: Convolution2D
  private let timeEmbedding: Linear?
  private let norm2: GroupNorm
  private let conv2: Convolution2D
  private let shortcut: Convolution2D?
  private let path: String

  /// - Parameters:
  ///   - timeChannels: the length of the time embedding; nil in an autoencoder, which has none.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ inChannels: Int, _ outChannels: Int, timeChannels: Int?, groups: Int, epsilon: Float, weights: WeightScope
  ) throws {
    norm1 = try GroupNorm(groups: groups, channels: inChannels, epsilon: epsilon, weights: weights["norm1"])
    conv1 = try Convolution2D(inChannels, outChannels, kernel: 3, padding: 1, weights: weights["conv1"])
    timeEmbedding = try timeChannels.map { try Linear($0, outChannels, weights: weights["time_emb_proj"]) }
    norm2 = try GroupNorm(groups: groups, channels: outChannels, epsilon: epsilon, weights: weights["norm2"])
    conv2 = try Convolution2D(outChannels, outChannels, kernel: 3, padding: 1, weights: weights["conv2"])
    shortcut = inChannels == outChannels ? nil : try Convolution2D(inChannels, outChannels, kernel: 1, weights: weights["conv_shortcut"])
    path = weights.prefix
  }

  /// The same over the frames of clips, pixel by pixel, with as many channels before and after it. Source: diffusers' `TemporalResnetBlock`.
  ///
  /// Its pictures are clips, `[N, F, P, C]`, with a row for each frame.
  /// - Throws: `WeightErrors`, `CancellationError`.
  init(acrossFrames channels: Int, timeChannels: Int?, groups: Int, epsilon: Float, weights: WeightScope) throws {
    norm1 = try GroupNorm(groups: groups, channels: channels, epsilon: epsilon, weights: weights["norm1"])
    conv1 = try Convolution2D(channels, channels, frames: 3, weights: weights["conv1"])
    timeEmbedding = try timeChannels.map { try Linear($0, channels, weights: weights["time_emb_proj"]) }
    norm2 = try GroupNorm(groups: groups, channels: channels, epsilon: epsilon, weights: weights["norm2"])
    conv2 = try Convolution2D(channels, channels, frames: 3, weights: weights["conv2"])
    shortcut = nil
    path = weights.prefix
  }

  /// - Parameters:
  ///   - inputs: `[N, H, W, Cᵢ]`, joined along channels, inChannels in all. If the caller passes the last reference to a single input, the block
  ///     works in its memory.
  ///   - time: `[N, timeChannels]`, after its activation: SiLU of the embedding, the same for every block.
  /// - Returns: `[N, H, W, outChannels]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ inputs: consuming [Tensor], time: Tensor? = nil, in context: ExecutionContext) throws -> Tensor {
    if context.recomputes {
      let inputs = inputs
      return try context.recomputed { try self(inputs, time: time, in: $0) }
    }
    let shift = try time.flatMap { time in try timeEmbedding.map { try $0(time, in: context) } }
    // Without a shortcut the channels stay the same, and there is only one input.
    var around = shortcut == nil ? inputs[0] : nil
    let (hidden, projected) = try conv1(consume inputs, normalizedBy: norm1, shiftedBy: shift, beside: shortcut, in: context)
    around = (consume projected) ?? around
    let (result, _) = try conv2([consume hidden], normalizedBy: norm2, adding: around.take(), in: context)
    context.observer?(path, result)
    return result
  }
}
