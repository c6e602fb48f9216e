import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Tensor

/// The U-Net of the first latent diffusion models, which nothing guides but the time and perhaps a class. It is the network of `UNet2DConditionModel`
/// with other blocks. Source: Rombach et al. 2022, diffusers' `UNet2DModel`.
public struct UNet2DModel: NoisePredictor, ModelComponent {
  private let network: UNet2DConditionModel

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    network = try UNet2DConditionModel(UNet2DConfiguration(unconditionalJSON: json), weights: weights)
  }

  public static var classNames: [String] { ["UNet2DModel"] }
  public static var quantization: QuantizationRule { UNet2DConditionModel.quantization }

  /// How many classes there are (`num_class_embeds`); nil if there are none.
  public var classes: Int? { if case .table(let count)? = network.configuration.classEmbedding { count } else { nil } }

  public var inputChannels: Int { network.inputChannels }
  public var outputChannels: Int { network.outputChannels }
  public var sampleSize: Int? { network.sampleSize }
  public var sampleSides: (height: Int, width: Int)? { network.sampleSides }
  /// `class_labels`, where the configuration asks for them.
  public var declaredInputs: [PredictorInput] { network.declaredInputs }

  /// - Throws: `ComponentError` if there is no such branch, or for token merging, which needs transformers.
  public func check(_ shortcuts: Shortcuts) throws {
    if shortcuts.tokenMerging != nil { throw ComponentError.unsupported(component: "This U-Net", option: "token merging") }
    try network.check(shortcuts)
  }

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

/// The keys that the configuration of `UNet2DModel` has and that of `UNet2DConditionModel` has not, or in which absent means something else.
struct UNet2DModelKeys: Decodable, Sendable {
  let add_attention: Bool
  private let attn_norm_num_groups: Int?
  private let downsample_type: String?
  private let upsample_type: String?
  /// Channels of each head; null: all channels are one head.
  private let attention_head_dim: Int?
  private let mid_block_type: String?

  private enum CodingKeys: CodingKey {
    case add_attention, attn_norm_num_groups, downsample_type, upsample_type, attention_head_dim, mid_block_type
  }

  init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    add_attention = try values.decodeIfPresent(Bool.self, forKey: .add_attention) ?? true
    attn_norm_num_groups = try values.decodeIfPresent(Int.self, forKey: .attn_norm_num_groups)
    downsample_type = try values.decodeIfPresent(String.self, forKey: .downsample_type)
    upsample_type = try values.decodeIfPresent(String.self, forKey: .upsample_type)
    attention_head_dim = values.contains(.attention_head_dim) ? try values.decodeIfPresent(Int.self, forKey: .attention_head_dim) : 8
    mid_block_type = values.contains(.mid_block_type) ? try values.decodeIfPresent(String.self, forKey: .mid_block_type) : "UNetMidBlock2D"
  }

  /// The block at the lowest resolution.
  func middle(of groups: Int, _ check: ConfigurationCheck) throws -> UNet2DConfiguration.Middle {
    guard let mid_block_type else { return .none }
    try check.supported(mid_block_type == "UNetMidBlock2D", "mid_block_type", mid_block_type)
    return .pixelAttention(groups: add_attention ? attn_norm_num_groups ?? groups : nil)
  }

  /// The number of heads of a level. One that does not divide the channels is for levels without attention, and refused at others.
  fileprivate func heads(_ channels: Int, _ check: ConfigurationCheck) throws -> Int {
    guard let attention_head_dim else { return 1 }
    try check.extent(attention_head_dim, "attention_head_dim")
    return channels.isMultiple(of: attention_head_dim) ? max(1, channels / attention_head_dim) : channels &+ 1
  }

  fileprivate func checkResampling(_ check: ConfigurationCheck) throws {
    for (value, key) in [(downsample_type, "downsample_type"), (upsample_type, "upsample_type")] {
      try check.supported((value ?? "conv") == "conv", key, value ?? "")
    }
  }

  fileprivate func checkGroups(_ channels: Int, _ check: ConfigurationCheck) throws {
    guard let attn_norm_num_groups else { return }
    try check.extent(attn_norm_num_groups, "attn_norm_num_groups")
    try check.require(
      channels.isMultiple(of: attn_norm_num_groups), "attn_norm_num_groups",
      "\(attn_norm_num_groups) groups do not divide \(channels) channels")
  }
}

extension UNet2DConfiguration {
  /// - Parameter json: the `config.json` of a `UNet2DModel`.
  /// - Throws: `ConfigurationError`.
  public init(unconditionalJSON json: Data) throws {
    let check = ConfigurationCheck("UNet2DModel")
    var keys = try decodeConfiguration(UNet2DKeys.self, component: check.component, from: json)
    let own = try decodeConfiguration(UNet2DModelKeys.self, component: check.component, from: json)
    try own.checkResampling(check)
    let channels = keys.block_out_channels ?? [224, 448, 672, 896]
    if let last = channels.last { try own.checkGroups(last, check) }
    keys.block_out_channels = channels
    keys.in_channels = keys.in_channels ?? 3
    keys.out_channels = keys.out_channels ?? 3
    keys.down_block_types = keys.down_block_types ?? ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]
    keys.up_block_types = keys.up_block_types ?? ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"]
    keys.num_attention_heads = PerLevel(levels: try channels.map { try own.heads($0, check) })
    try self.init(keys, middle: nil, unconditional: own, check)
  }
}
