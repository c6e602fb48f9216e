import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights

/// Motion modules that make a U-Net for pictures draw clips: one after each of its resnets and their attention, on the way down and up, and perhaps in the
/// middle. `UNet2DConditionModel.adding` puts them there.
///
/// Source: Guo et al. 2023, "AnimateDiff" (arXiv:2307.04725), diffusers' `MotionAdapter`.
public struct MotionAdapter: ModelComponent {
  /// The checked configuration.
  public let configuration: MotionConfiguration
  /// For each level, one for each resnet.
  let down: [[TransformerTemporalModel]]
  let middle: TransformerTemporalModel?
  /// The same on the way up, from the lowest resolution on.
  let up: [[TransformerTemporalModel]]

  public static var classNames: [String] { ["MotionAdapter"] }
  public static var quantization: QuantizationRule { .matrices(except: ["pos_embed."]) }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(MotionConfiguration(json: json), weights: weights)
  }

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: MotionConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    func module(_ level: MotionConfiguration.Level, layers: Int, _ weights: WeightScope) throws -> TransformerTemporalModel {
      try TransformerTemporalModel(
        level.channels, heads: level.heads, headChannels: level.channels / level.heads, layers: layers, groups: configuration.groups,
        positions: configuration.frames, weights: weights)
    }
    func modules(_ level: MotionConfiguration.Level, _ layers: [Int], _ weights: WeightScope) throws -> [TransformerTemporalModel] {
      try layers.enumerated().map { try module(level, layers: $1, weights["motion_modules"][$0]) }
    }
    let levels = configuration.levels
    down = try levels.enumerated().map { try modules($1, $1.down, weights["down_blocks"][$0]) }
    middle = try configuration.middle.flatMap { layers in
      try levels.last.map { try module($0, layers: layers, weights["mid_block"]["motion_modules"][0]) }
    }
    up = try levels.reversed().enumerated().map { try modules($1, $1.up, weights["up_blocks"][$0]) }
  }
}
