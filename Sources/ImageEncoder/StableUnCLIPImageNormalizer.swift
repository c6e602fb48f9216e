import Foundation
import LatentDiffusionWeights
import Tensor

/// The mean and the standard deviation of CLIP's picture states. Source: diffusers' `StableUnCLIPImageNormalizer`.
public struct StableUnCLIPImageNormalizer: ModelComponent {
  private let mean: Parameter<Tensor>
  private let std: Parameter<Tensor>

  private struct Keys: Decodable { var embedding_dim: Int? }

  public static var classNames: [String] { ["StableUnCLIPImageNormalizer"] }

  /// - Throws: `ConfigurationError`, `WeightErrors`.
  public init(configuration json: Data, weights: WeightScope) throws {
    let check = ConfigurationCheck("StableUnCLIPImageNormalizer")
    let features = try decodeConfiguration(Keys.self, component: check.component, from: json).embedding_dim ?? 768
    try check.extent(features, "embedding_dim")
    mean = try weights.vector("mean", shape: [1, features])
    std = try weights.vector("std", shape: [1, features])
  }

  /// The length of a state.
  public var features: Int { mean.value.shape.columns }

  /// `[1, features]` → the same with mean 0 and deviation 1.
  public func scaled(_ embeds: Tensor) -> Tensor { (embeds - mean.value) / std.value }

  /// The opposite.
  public func unscaled(_ embeds: Tensor) -> Tensor { embeds * std.value + mean.value }
}
