import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The U-Net of Stable Video Diffusion, whose blocks let the frames of a clip see one another. It is the network of `UNet2DConditionModel` with more layers in
/// its blocks, and is told numbers in the place of a pooled text. Source: Blattmann et al. 2023 (arXiv:2311.15127), diffusers'
/// `UNetSpatioTemporalConditionModel`.
public struct UNetSpatioTemporalConditionModel: NoisePredictor, ModelComponent {
  private let network: UNet2DConditionModel

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    network = try UNet2DConditionModel(UNet2DConfiguration(spatioTemporalJSON: json), weights: weights)
  }

  public static var classNames: [String] { ["UNetSpatioTemporalConditionModel"] }
  public static var quantization: QuantizationRule { UNet2DConditionModel.quantization }

  /// The number of features of a token of the picture.
  public var contextChannels: Int { network.configuration.contextChannels }

  public var inputChannels: Int { network.inputChannels }
  public var outputChannels: Int { network.outputChannels }
  public var sampleSize: Int? { network.sampleSize }
  public var sampleSides: (height: Int, width: Int)? { network.sampleSides }
  public var clip: ClipLength? { network.clip }
  /// `time_ids`: the frames a second less one, the bucket of motion, and the noise of the picture.
  public var declaredInputs: [PredictorInput] { network.declaredInputs }

  /// - Throws: `ComponentError` if there is no such branch.
  public func check(_ shortcuts: Shortcuts) throws { try network.check(shortcuts) }

  /// - Throws: `ComponentError` if shapes do not fit, `CancellationError`.
  public func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    try network.predict(latents, timestep: timestep, conditioning: conditioning, in: context)
  }

  /// - Throws: `ComponentError` if shapes do not fit, `CancellationError`.
  public func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    try network.predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }
}

extension UNet2DConfiguration {
  private struct ClipKeys: Decodable { var num_frames: Int? }

  /// - Parameter json: the `config.json` of a `UNetSpatioTemporalConditionModel`.
  /// - Throws: `ConfigurationError`.
  init(spatioTemporalJSON json: Data) throws {
    let check = ConfigurationCheck("UNetSpatioTemporalConditionModel")
    let frames = try decodeConfiguration(ClipKeys.self, component: check.component, from: json).num_frames ?? 25
    try check.require(
      (1...MotionConfiguration.mostFrames).contains(frames), "num_frames", "\(frames) is not from 1 to \(MotionConfiguration.mostFrames)")
    var keys = try decodeConfiguration(UNet2DKeys.self, component: check.component, from: json)
    let cross = Array(repeating: "CrossAttn", count: 3), suffix = "SpatioTemporal"
    let usual = (down: cross.map { $0 + "DownBlock" } + ["DownBlock"], up: ["UpBlock"] + cross.map { $0 + "UpBlock" })
    keys.down_block_types = try Self.pictureBlocks(
      keys.down_block_types ?? usual.down.map { $0 + suffix }, ending: suffix, "down_block_types", check)
    keys.up_block_types = try Self.pictureBlocks(
      keys.up_block_types ?? usual.up.map { $0 + suffix }, ending: suffix, "up_block_types", check)
    keys.in_channels = keys.in_channels ?? 8
    keys.num_attention_heads = keys.num_attention_heads ?? PerLevel(levels: [5, 10, 20, 20])
    keys.cross_attention_dim = keys.cross_attention_dim ?? PerLevel(1024)
    keys.addition_time_embed_dim = keys.addition_time_embed_dim ?? 256
    keys.projection_class_embeddings_input_dim = keys.projection_class_embeddings_input_dim ?? 768
    // What every such network has, and no key says.
    keys.addition_embed_type = "text_time"
    keys.use_linear_projection = true
    try self.init(keys, middle: "UNetMidBlock2DCrossAttn", unconditional: nil, frames: frames, check)
  }
}
