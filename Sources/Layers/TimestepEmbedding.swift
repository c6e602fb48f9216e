import Foundation
import Tensor
import LatentDiffusionWeights

/// Sinusoids of a number, as transformers encode positions. Source: Vaswani et al. 2017, diffusers' `get_timestep_embedding`.
public struct Timesteps: Sendable {
  /// Sines and cosines together.
  public let channels: Int
  /// True: cosines before sines.
  public let flipSinToCos: Bool
  /// Subtracted from the divisor of the exponent.
  public let frequencyShift: Float

  /// - Parameters:
  ///   - channels: sines and cosines together.
  ///   - flipSinToCos: whether cosines come first (`flip_sin_to_cos`).
  ///   - frequencyShift: subtracted from the divisor of the exponent (`freq_shift`).
  public init(_ channels: Int, flipSinToCos: Bool, frequencyShift: Float) {
    (self.channels, self.flipSinToCos, self.frequencyShift) = (channels, flipSinToCos, frequencyShift)
  }

  /// - Returns: `[N, channels]` for N values.
  public func callAsFunction(_ values: [Float]) -> Tensor {
    let half = channels / 2
    var elements: [Float] = []
    for value in values {
      // ω_i = 10000^(-i / (half - shift)), in float32 as the reference computes it.
      let angles = (0..<half).map { value * exp(-Float(log(10000.0)) * Float($0) / (Float(half) - frequencyShift)) }
      let (sines, cosines) = (angles.map { sin($0) }, angles.map { cos($0) })
      elements += flipSinToCos ? cosines + sines : sines + cosines
      if channels % 2 == 1 { elements.append(0) }
    }
    return Tensor(elements, shape: [values.count, channels])
  }
}

/// Sinusoids of a number, whose frequencies are weights. Source: Tancik et al. 2020 (arXiv:2006.10739), diffusers' `GaussianFourierProjection` without
/// the logarithm.
public struct GaussianFourierProjection: Sendable {
  private let weight: Parameter<Tensor>
  private let flipSinToCos: Bool
  private let path: String

  /// Takes `weight` `[channels / 2]`: turns for each unit of the number.
  ///
  /// - Parameters:
  ///   - channels: sines and cosines together, an even number.
  ///   - flipSinToCos: whether cosines come first (`flip_sin_to_cos`).
  /// - Throws: `WeightErrors`.
  public init(_ channels: Int, flipSinToCos: Bool, weights: WeightScope) throws {
    weight = try weights.vector("weight", shape: [channels / 2])
    (self.flipSinToCos, path) = (flipSinToCos, weights.prefix)
  }

  /// - Returns: `[N, channels]` for N values.
  public func callAsFunction(_ values: [Float], in context: ExecutionContext) -> Tensor {
    let frequencies = weight.value(in: context).elements
    let elements = values.flatMap { value in
      // In float32, in the reference's order.
      let angles = frequencies.map { value * $0 * 2 * Float.pi }
      let (sines, cosines) = (angles.map { sin($0) }, angles.map { cos($0) })
      return flipSinToCos ? cosines + sines : sines + cosines
    }
    let result = Tensor(elements, shape: [values.count, 2 * frequencies.count])
    context.observer?(path, result)
    return result
  }
}

/// Two linear layers that turn sinusoids into the embedding that every block takes. Source: diffusers' `TimestepEmbedding`.
public struct TimestepEmbedding: Sendable {
  private let linear1: Linear
  private let linear2: Linear
  /// Projects a further condition (LCM's guidance) into the sinusoids' space.
  private let conditionProjection: Linear?
  private let activation: Activation
  private let last: Activation
  private let path: String

  /// Takes `linear_1`, `linear_2` and, with `conditionChannels`, `cond_proj`.
  ///
  /// - Parameters:
  ///   - channels: of the sinusoids.
  ///   - embedding: the length of the embedding.
  ///   - outputs: the length of the result (`out_dim`); nil: the embedding's.
  ///   - conditionChannels: of the further condition; nil: there is none.
  ///   - activation: between the two layers (`act_fn`).
  ///   - last: of the result (`post_act_fn`).
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ channels: Int, embedding: Int, outputs: Int? = nil, conditionChannels: Int? = nil, activation: Activation = .silu,
    last: Activation = .none,
    weights: WeightScope
  ) throws {
    (self.activation, self.last) = (activation, last)
    linear1 = try Linear(channels, embedding, weights: weights["linear_1"])
    linear2 = try Linear(embedding, outputs ?? embedding, weights: weights["linear_2"])
    conditionProjection = try conditionChannels.map { try Linear($0, channels, bias: false, weights: weights["cond_proj"]) }
    path = weights.prefix
  }

  /// - Parameters:
  ///   - sinusoids: `[N, channels]`.
  ///   - condition: `[N, conditionChannels]`.
  /// - Returns: `[N, embedding]`, or as many as `outputs`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ sinusoids: Tensor, condition: Tensor? = nil, in context: ExecutionContext) throws -> Tensor {
    var x = sinusoids
    if let condition, let conditionProjection { x = try conditionProjection(condition, adding: x, in: context) }
    let result = try linear2(linear1(x, activation: activation, in: context), activation: last, in: context)
    context.observer?(path, result)
    return result
  }
}
