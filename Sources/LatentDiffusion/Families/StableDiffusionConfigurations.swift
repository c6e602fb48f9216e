import Foundation
import LatentDiffusionWeights
import Tensor

/// The configurations that diffusers would give to the components of a single file: what the tensors' shapes say, and where they say
/// nothing, what all published models of the kind have.
enum DerivedConfiguration {
  typealias Tensors = [String: StoredTensor]

  /// What is not there though nothing can be known without it.
  struct Missing: Error {
    let component: String
    let what: String
  }

  /// The keys of `UNet2DConditionModel`'s configuration.
  struct UNet: DerivedComponent {
    static let guesses = ConfigurationGuesses(
      ["sample_size", "addition_time_embed_dim"], ofWidth: ["attention_head_dim", "norm_num_groups"], width: "block_out_channels",
      absent: ["time_cond_proj_dim", "num_class_embeds"])
    let _class_name = "UNet2DConditionModel"
    let sample_size: Int
    let in_channels: Int
    let out_channels: Int
    let down_block_types: [String]
    let mid_block_type: Nullable
    let up_block_types: [String]
    let block_out_channels: [Int]
    let layers_per_block: [Int]
    let transformer_layers_per_block: [LayerCounts]
    let reverse_transformer_layers_per_block: [LayerCounts]?
    let cross_attention_dim: Int
    let attention_head_dim: [Int]
    let use_linear_projection: Bool
    let norm_num_groups: Int
    let time_cond_proj_dim: Int?
    let num_class_embeds: Int?
    let only_cross_attention: [Bool]?
    let class_embed_type: String?
    var addition_embed_type: String?
    var addition_time_embed_dim: Int?
    var projection_class_embeddings_input_dim: Int?
  }

  /// A text, or null where there is nothing: to leave the key out would mean diffusers' default.
  struct Nullable: Encodable {
    let text: String?

    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      if let text { try container.encode(text) } else { try container.encodeNil() }
    }
  }

  /// A number for all layers of a level, or one for each.
  struct LayerCounts: Encodable {
    let counts: [Int]
    var isEven: Bool { Set(counts).count <= 1 }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      if isEven { try container.encode(counts.first ?? 1) } else { try container.encode(counts) }
    }
  }

  /// The keys of `AutoencoderKL`'s configuration, and of `VQModel`'s.
  struct Autoencoder: DerivedComponent {
    static let guesses = ConfigurationGuesses(
      ["sample_size", "scaling_factor"], ofWidth: ["norm_num_groups"], width: "block_out_channels")
    let _class_name: String
    let sample_size: Int
    let in_channels: Int
    let out_channels: Int
    let down_block_types: [String]
    let up_block_types: [String]
    let block_out_channels: [Int]
    let layers_per_block: Int
    let latent_channels: Int
    let norm_num_groups: Int
    let scaling_factor: Double
    let use_quant_conv: Bool
    let use_post_quant_conv: Bool
    let mid_block_add_attention: Bool
    let num_vq_embeddings: Int?
    let vq_embed_dim: Int?
  }

  /// The keys of `CLIPTextConfig`.
  struct Text: DerivedComponent {
    static let guesses = ConfigurationGuesses(
      ["bos_token_id", "eos_token_id"], ofWidth: ["num_attention_heads", "hidden_act", "layer_norm_eps"],
      width: "hidden_size")
    var _class_name: String { architectures[0] }
    let architectures: [String]
    let model_type = "clip_text_model"
    let vocab_size: Int
    let hidden_size: Int
    let intermediate_size: Int
    let num_hidden_layers: Int
    let num_attention_heads: Int
    let max_position_embeddings: Int
    let projection_dim: Int?
    let hidden_act: String
    let layer_norm_eps = 1e-5
    let bos_token_id: Int
    let eos_token_id: Int
  }

  /// The keys of `CLIPTokenizer`'s configuration.
  struct Tokenizer: Encodable {
    let tokenizer_class = "CLIPTokenizer"
    let model_max_length: Int
    let bos_token = "<|startoftext|>"
    let eos_token = "<|endoftext|>"
    let unk_token = "<|endoftext|>"
    let pad_token: String
  }

  /// The keys of a scheduler's configuration.
  struct Scheduler: Encodable {
    let _class_name: String
    var beta_start = 0.00085
    var beta_end = 0.012
    let beta_schedule = "scaled_linear"
    let num_train_timesteps = 1000
    let prediction_type: String
    let set_alpha_to_one = false
    let skip_prk_steps = true
    let steps_offset = 1
    let clip_sample = false
    let interpolation_type = "linear"
    let timestep_spacing: String
    let rescale_betas_zero_snr: Bool?
  }

  // MARK: from diffusers' names

  /// - Parameters:
  ///   - latentSide: how many latents a side the model was trained for; the file does not say it.
  ///   - heads: of every attention; nil: as Stable Diffusion has them.
  static func unet(_ tensors: Tensors, latentSide: Int, heads: Int? = nil) throws(Missing) -> UNet {
    func extent(_ name: String, _ axis: Int) throws(Missing) -> Int { try tensors.extent(name, axis, of: "U-Net") }
    let levels = tensors.count(of: "down_blocks.")
    guard levelCounts.contains(levels), let transformer = tensors.transformer(in: "mid_block.") ?? tensors.transformer(in: "") else {
      throw Missing(component: "U-Net", what: "its blocks, or all attention to text")
    }
    var channels: [Int] = []
    for level in 0..<levels { channels.append(try extent("down_blocks.\(level).resnets.0.conv2.weight", 0)) }
    let isLinear = hasLinearProjections(tensors)
    func transformers(_ block: String) -> LayerCounts {
      LayerCounts(
        counts: (0..<tensors.count(of: block + "attentions.")).map { tensors.count(of: block + "attentions.\($0).transformer_blocks.") })
    }
    let ways = (0..<levels).map { (down: transformers("down_blocks.\($0)."), up: transformers("up_blocks.\(levels - 1 - $0).")) }
    let middle = tensors.count(of: "mid_block.attentions.0.transformer_blocks.")
    let all = Set(ways.flatMap { $0.down.counts + $0.up.counts } + (middle > 0 ? [middle] : []))
    // What a level without attention says means nothing.
    let usual = LayerCounts(counts: [all.count == 1 ? all.first ?? 1 : 1])
    func counts(_ own: LayerCounts, _ other: LayerCounts) -> LayerCounts {
      own.counts.isEmpty ? !other.counts.isEmpty && other.isEven ? other : usual : own
    }
    var down = ways.map { counts($0.down, $0.up) }
    let up = ways.reversed().map { counts($0.up, $0.down) }
    if middle > 0, down[levels - 1].isEven { down[levels - 1] = LayerCounts(counts: [middle]) }
    let isUneven = zip(down, up.reversed()).contains { !$0.isEven || !$1.isEven || $0.counts[0] != $1.counts[0] }
    // A level whose first attention takes tokens of another width than its own attends to the text with both.
    let onlyText = (0..<levels).map { level in
      tensors.transformer(in: "down_blocks.\(level).").flatMap { tensors[$0 + "transformer_blocks.0.attn1.to_k.weight"]?.shape.extent(1) }
        .map { $0 != channels[level] } ?? false
    }
    let classes = tensors["class_embedding.weight"]?.shape.extent(0)
    // What unCLIP's classes are: pictures' states.
    let projected = tensors["class_embedding.linear_1.weight"]?.shape.extent(1)
    return UNet(
      sample_size: latentSide, in_channels: try extent("conv_in.weight", 1), out_channels: try extent("conv_out.weight", 0),
      down_block_types: (0..<levels).map { tensors.transformer(in: "down_blocks.\($0).") == nil ? "DownBlock2D" : "CrossAttnDownBlock2D" },
      mid_block_type: Nullable(
        text: middle > 0 ? "UNetMidBlock2DCrossAttn" : tensors.has("mid_block.resnets.") ? "UNetMidBlock2D" : nil),
      up_block_types: (0..<levels).map { tensors.transformer(in: "up_blocks.\($0).") == nil ? "UpBlock2D" : "CrossAttnUpBlock2D" },
      block_out_channels: channels, layers_per_block: (0..<levels).map { tensors.count(of: "down_blocks.\($0).resnets.") },
      transformer_layers_per_block: down, reverse_transformer_layers_per_block: isUneven ? up : nil,
      cross_attention_dim: try extent(transformer + "transformer_blocks.0.attn2.to_k.weight", 1),
      attention_head_dim: heads.map { Array(repeating: $0, count: levels) } ?? self.heads(channels, isLinear: isLinear && classes == nil),
      use_linear_projection: isLinear,
      norm_num_groups: groups(channels), time_cond_proj_dim: tensors["time_embedding.cond_proj.weight"]?.shape.extent(1),
      num_class_embeds: classes, only_cross_attention: onlyText.contains(true) ? onlyText : nil,
      class_embed_type: projected == nil ? nil : "projection", projection_class_embeddings_input_dim: projected)
  }

  static func autoencoder(_ tensors: Tensors, pixels: Int, scale: Double = 0.18215) throws(Missing) -> Autoencoder {
    func extent(_ name: String, _ axis: Int) throws(Missing) -> Int { try tensors.extent(name, axis, of: "autoencoder") }
    let levels = tensors.count(of: "encoder.down_blocks.")
    guard levelCounts.contains(levels) else { throw Missing(component: "autoencoder", what: "the encoder's blocks") }
    var channels: [Int] = []
    for level in 0..<levels { channels.append(try extent("encoder.down_blocks.\(level).resnets.0.conv2.weight", 0)) }
    func attends(_ block: String) -> Bool { tensors.has(block + ".attentions.") }
    let codebook = tensors["quantize.embedding.weight"]?.shape
    return Autoencoder(
      _class_name: codebook == nil ? "AutoencoderKL" : "VQModel", sample_size: pixels,
      in_channels: try extent("encoder.conv_in.weight", 1), out_channels: try extent("decoder.conv_out.weight", 0),
      down_block_types: (0..<levels).map { attends("encoder.down_blocks.\($0)") ? "AttnDownEncoderBlock2D" : "DownEncoderBlock2D" },
      up_block_types: (0..<levels).map { attends("decoder.up_blocks.\($0)") ? "AttnUpDecoderBlock2D" : "UpDecoderBlock2D" },
      block_out_channels: channels,
      layers_per_block: tensors.count(of: "encoder.down_blocks.0.resnets."), latent_channels: try extent("decoder.conv_in.weight", 1),
      norm_num_groups: groups(channels),
      // The original code scales the latents of codebooks by 1.
      scaling_factor: codebook == nil ? scale : 1, use_quant_conv: tensors.has("quant_conv."),
      use_post_quant_conv: tensors.has("post_quant_conv."),
      // Any part of it: what is missing then is told, instead of the whole attention being left out.
      mid_block_add_attention: tensors.has("encoder.mid_block.attentions.") || tensors.has("decoder.mid_block.attentions."),
      num_vq_embeddings: codebook?.extent(0), vq_embed_dim: codebook?.extent(1))
  }

  /// - Parameters:
  ///   - latentSide: how many latents a side the model was trained for.
  ///   - pooled: the length of the pooled text.
  ///   - numbers: how many numbers the model is told beside it.
  static func unetXL(_ tensors: Tensors, latentSide: Int, pooled: Int, numbers: Int) throws(Missing) -> UNet {
    var result = try unet(tensors, latentSide: latentSide)
    let inputs = try tensors.extent("add_embedding.linear_1.weight", 1, of: "U-Net")
    result.addition_embed_type = "text_time"
    result.projection_class_embeddings_input_dim = inputs
    result.addition_time_embed_dim = max(0, inputs - pooled) / numbers
    return result
  }

  static func text(_ tensors: Tensors, isOpenCLIP: Bool, className: String = "CLIPTextModel") throws(Missing) -> Text {
    func extent(_ name: String, _ axis: Int) throws(Missing) -> Int { try tensors.extent(name, axis, of: "text encoder") }
    let hidden = try extent("embeddings.token_embedding.weight", 1)
    let vocabulary = try extent("embeddings.token_embedding.weight", 0)
    return Text(
      architectures: [className], vocab_size: vocabulary, hidden_size: hidden,
      intermediate_size: try extent("encoder.layers.0.mlp.fc1.weight", 0),
      num_hidden_layers: tensors.count(of: "encoder.layers."), num_attention_heads: max(1, hidden / 64),
      max_position_embeddings: try extent("embeddings.position_embedding.weight", 0),
      projection_dim: tensors["text_projection.weight"]?.shape.extent(0), hidden_act: isOpenCLIP ? "gelu" : "quick_gelu",
      // CLIP's vocabulary ends with these two.
      bos_token_id: max(0, vocabulary - 2), eos_token_id: max(0, vocabulary - 1))
  }

  static func tokenizer(length: Int, isOpenCLIP: Bool) -> Tokenizer {
    // OpenCLIP fills a text up with zeros, and 0 is the exclamation mark.
    Tokenizer(model_max_length: length, pad_token: isOpenCLIP ? "!" : "<|endoftext|>")
  }

  /// What the network predicts, which no shape tells.
  ///
  /// The file's own marks decide: the empty tensors `v_pred` and `ztsnr` that ComfyUI and Forge look for, `modelspec.prediction_type`, and
  /// sd-scripts' `ss_v_parameterization` and `ss_zero_terminal_snr`. Without any, diffusers' rule holds: a text-to-image model of version 2 and its upscaler
  /// predict v, except where `global_step` is 875000, which is how the published 512-pixel model is known; all others predict the noise.
  /// - Parameter className: of the scheduler; nil: PNDM, or DDIM for v, as the folders of versions 1 and 2 have it.
  static func scheduler(_ file: any TensorFile, isVersion2: Bool, inputChannels: Int?, className: String? = nil) -> Scheduler {
    let prediction: PredictionMark? =
      file.names.contains("v_pred")
      ? .v : file.metadata["modelspec.prediction_type"].flatMap(PredictionMark.init) ?? (file.isMarked("ss_v_parameterization") ? .v : nil)
    let isV =
      prediction.map { $0 == .v } ?? (isVersion2 && ![5, 9].contains(inputChannels) && file.globalStep != 875_000)
    // Without any signal at the last timestep only v says what the picture is.
    let hasZeroSNR = isV && (file.names.contains("ztsnr") || file.isMarked("ss_zero_terminal_snr"))
    // PNDM is what version 1's folders name, DDIM what version 2.1's does. Lin et al. 2023 (arXiv:2305.08891): with a zero terminal signal
    // the steps must begin at the last timestep.
    return Scheduler(
      _class_name: className ?? (isV ? "DDIMScheduler" : "PNDMScheduler"), prediction_type: isV ? "v_prediction" : "epsilon",
      timestep_spacing: hasZeroSNR ? "trailing" : "leading", rescale_betas_zero_snr: hasZeroSNR ? true : nil)
  }

  private enum PredictionMark {
    case v, epsilon

    init?(_ word: String) {
      switch word.lowercased() {
      case "v", "v_prediction", "v-prediction": self = .v
      case "epsilon", "eps": self = .epsilon
      default: return nil
      }
    }
  }

  /// What training leaves in a file and no picture needs: averages of the weights, noise tables, and marks that are read elsewhere; and the network that
  /// guesses depths, since a request brings them.
  static func isBookkeeping(_ name: String) -> Bool {
    let exact: Set = [
      "v_pred", "ztsnr", "global_step", "epoch", "scale_factor", "logvar", "betas", "lvlb_weights", "pytorch-lightning_version",
      "cond_stage_model.logit_scale",
    ]
    let beginnings = [
      "model_ema.", "low_res_model.", "depth_model.", "alphas_cumprod", "sqrt_", "log_one_minus_alphas_cumprod", "posterior_", "denoiser.",
      "optimizer", "callbacks.", "lr_schedulers.",
    ]
    return exact.contains(name) || beginnings.contains { name.hasPrefix($0) }
  }

  /// More levels than this would leave nothing of a picture.
  static let levelCounts = 1...16

  /// True where the transformers' projections are matrices (version 2), false where they are 1×1 convolutions.
  static func hasLinearProjections(_ tensors: Tensors) -> Bool {
    tensors.contains { $0.key.hasSuffix(".proj_in.weight") && $0.value.shape.rank == 2 }
  }

  /// True where a text encoder under CLIP's names has the width of version 2's.
  static func hasVersion2Width(_ tensors: Tensors) -> Bool {
    tensors.contains { $0.key.hasSuffix("embeddings.token_embedding.weight") && $0.value.shape.extent(1) == 1024 }
  }

  /// Version 1 and the upscaler have 8 heads everywhere, version 2 heads of 64 channels. The key is diffusers' old misnomer for the number of heads.
  static func heads(_ channels: [Int], isLinear: Bool) -> [Int] { channels.map { isLinear ? max(1, $0 / 64) : 8 } }

  /// 32 groups, as all published models have; for narrower ones the most that divide 32 and every width.
  static func groups(_ channels: [Int]) -> Int {
    [32, 16, 8, 4, 2].first { groups in channels.allSatisfy { $0 % groups == 0 } } ?? 1
  }
}

/// The configuration of a component with tensors, which say most of it.
protocol DerivedComponent: Encodable {
  /// What they do not say.
  static var guesses: ConfigurationGuesses { get }
  var _class_name: String { get }
}

extension Checkpoint.Component {
  init(_ configuration: some DerivedComponent, _ tensors: [String: StoredTensor]) {
    self.init(
      className: configuration._class_name, configuration: configuration.json, table: WeightTable(tensors),
      guesses: type(of: configuration).guesses)
  }
}

extension TensorFile {
  /// Whether sd-scripts' metadata say that something was on.
  fileprivate func isMarked(_ key: String) -> Bool { metadata[key]?.lowercased() == "true" }

  /// How long the model was trained: a tensor, or a number of a pickle.
  fileprivate var globalStep: Int64? { tensors["global_step"]?.wholeNumber ?? metadata["global_step"].flatMap { Int64($0) } }
}

extension [String: StoredTensor] {
  /// Whether anything is below a prefix.
  func has(_ prefix: String) -> Bool { keys.contains { $0.hasPrefix(prefix) } }

  func extent(_ name: String, _ axis: Int, of component: String) throws(DerivedConfiguration.Missing) -> Int {
    guard let extent = self[name]?.shape.extent(axis) else { throw DerivedConfiguration.Missing(component: component, what: name) }
    return extent
  }

  /// Where the first transformer below a prefix is, in the order of the names.
  func transformer(in prefix: String) -> String? {
    let suffix = "transformer_blocks.0.attn2.to_k.weight"
    return keys.filter { $0.hasPrefix(prefix) && $0.hasSuffix("." + suffix) }.min().map { String($0.dropLast(suffix.count)) }
  }
}

extension StoredTensor {
  /// The value of a single I64.
  fileprivate var wholeNumber: Int64? {
    guard elementType == "I64", shape.count == 1, data.count == 8 else { return nil }
    return Int64(bitPattern: data.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
  }
}

extension Encodable {
  /// A derived configuration as JSON. The same tensors give the same text, and nothing in them can fail to be encoded.
  var json: Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
    return (try? encoder.encode(self)) ?? Data("{}".utf8)
  }
}
