import Foundation
import LatentDiffusionWeights
import Tensor

/// A single file of the original code that holds Stable Video Diffusion. Source: the original code's `VideoUNet` and `VideoDecoder` beside diffusers' classes.
///
/// The encoder of pictures is the one that the conditioning has, since that one has the last convolution of it.
struct StableVideoDiffusionCheckpoint: CheckpointLayout {
  private static let unetPrefix = StableDiffusionCheckpoint.unetPrefix
  private static let towerPrefix = "conditioner.embedders.0.open_clip.model.visual."
  private static let encoderPrefix = "conditioner.embedders.3.encoder."
  private static let decoderPrefix = "first_stage_model."

  var marks: String { "tensors below model.diffusion_model with time_stack in their names" }

  static func isMade(of names: Set<String>) -> Bool {
    names.contains { $0.hasPrefix(unetPrefix) && $0.contains(".time_stack.") }
  }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    guard Self.isMade(of: file.names) else { return nil }
    let unet = LDMKeys.videoUNet(file.tensors.below([Self.unetPrefix]))
    let hasEncoder = file.names.contains { $0.hasPrefix(Self.encoderPrefix + "encoder.") }
    let first = file.tensors.below([Self.decoderPrefix])
    let encoder = hasEncoder ? file.tensors.below([Self.encoderPrefix]).filter { !$0.key.hasPrefix("decoder.") } : first
    let autoencoder = LDMKeys.videoAutoencoder(encoder: encoder, decoder: first)
    let tower = try CLIPVisionFile(openCLIP: file, below: Self.towerPrefix)
    do throws(DerivedConfiguration.Missing) {
      let components = [
        "unet": Checkpoint.Component(try DerivedConfiguration.videoUNet(unet), unet),
        "vae": Checkpoint.Component(try DerivedConfiguration.videoAutoencoder(autoencoder), autoencoder),
        "image_encoder": Checkpoint.Component(
          className: "CLIPVisionModelWithProjection", configuration: tower.configuration, table: tower.table,
          guesses: ConfigurationGuesses(["hidden_act", "num_attention_heads"])),
        "scheduler": Checkpoint.Component(className: "EulerDiscreteScheduler", configuration: VideoScheduler().json, table: nil),
      ]
      let owners = file.names.reduce(into: [:]) { owners, name in owners[name] = Self.component(of: name, hasEncoder: hasEncoder) }
      let leftOver = file.names.filter { owners[$0] == nil && !Self.isBookkeeping($0) }
      return Checkpoint(
        file: file, className: "StableVideoDiffusionPipeline", components: components, owners: owners, leftOver: Array(leftOver))
    } catch {
      throw ModelFilesError.notAModel(
        path: file.url.path(percentEncoded: false), reason: "its \(error.component) lacks \(error.what)")
    }
  }

  private static func component(of name: String, hasEncoder: Bool) -> String? {
    if name.hasPrefix(unetPrefix) { return "unet" }
    if name.hasPrefix(towerPrefix) { return "image_encoder" }
    if name.hasPrefix(encoderPrefix) { return name.hasPrefix(encoderPrefix + "decoder.") ? nil : "vae" }
    return name.hasPrefix(decoderPrefix) && !(hasEncoder && name.hasPrefix(decoderPrefix + "encoder.")) ? "vae" : nil
  }

  /// What stays of the text tower beside the image tower, the conditioning's own decoder, and an encoder that is there twice.
  private static func isBookkeeping(_ name: String) -> Bool {
    name.hasPrefix("conditioner.") || name.hasPrefix(decoderPrefix) || DerivedConfiguration.isBookkeeping(name)
  }

  /// What the published folders say.
  private struct VideoScheduler: Encodable {
    let _class_name = "EulerDiscreteScheduler"
    let beta_start = 0.00085
    let beta_end = 0.012
    let beta_schedule = "scaled_linear"
    let interpolation_type = "linear"
    let num_train_timesteps = 1000
    let prediction_type = "v_prediction"
    let sigma_max = 700.0
    let sigma_min = 0.002
    let steps_offset = 1
    let timestep_spacing = "leading"
    let timestep_type = "continuous"
    let use_karras_sigmas = true
  }
}

extension LDMKeys {
  /// `VideoUNet` → `UNetSpatioTemporalConditionModel`: the names of the network for pictures, and those of what sees frames.
  fileprivate static func videoUNet(_ tensors: Tensors) -> Tensors {
    WeightTable(unet(tensors, labels: "add_embedding")).renamed { key in
      if let (place, inside) = key.split(after: ".attentions.") {
        let frames = inside.hasPrefix("time_stack.") ? "temporal_transformer_blocks." + inside.dropFirst("time_stack.".count) : inside
        return place + "."
          + frames.replacing("time_pos_embed.0.", with: "time_pos_embed.linear_1.")
          .replacing("time_pos_embed.2.", with: "time_pos_embed.linear_2.")
      }
      return key.split(after: ".resnets.").map { $0 + "." + videoResnet($1) } ?? key
    }.tensors
  }

  /// `VideoDecoder` beside an encoder of pictures → `AutoencoderKLTemporalDecoder`.
  fileprivate static func videoAutoencoder(encoder: Tensors, decoder: Tensors) -> Tensors {
    let levels = decoder.count(of: "decoder.up.")
    let encoding = autoencoder(encoder.filter { !$0.key.hasPrefix("decoder.") && !$0.key.hasPrefix("post_quant_conv.") })
    let decoding = WeightTable(autoencoder(decoder.filter { $0.key.hasPrefix("decoder.") })).renamed { key in
      if key.hasPrefix("decoder.conv_out.time_mix_conv.") {
        return "decoder.time_conv_out." + key.dropFirst("decoder.conv_out.time_mix_conv.".count)
      }
      // What sees frames has kept its name so far.
      let parts = key.split(separator: ".").map(String.init)
      if parts.count > 3, parts[1] == "mid", let block = ["block_1": 0, "block_2": 1][parts[2]] {
        return "decoder.mid_block.resnets.\(block)." + videoResnet(parts.dropFirst(3).joined(separator: "."))
      }
      if parts.count > 5, parts[1] == "up", parts[3] == "block", let level = Int(parts[2]), (0..<levels).contains(level) {
        return "decoder.up_blocks.\(levels - 1 - level).resnets.\(parts[4])." + videoResnet(parts.dropFirst(5).joined(separator: "."))
      }
      return key.split(after: ".resnets.").map { $0 + "." + videoResnet($1) } ?? key
    }.tensors
    return encoding.merging(decoding) { $1 }
  }

  /// What is inside a resnet whose frames see one another.
  private static func videoResnet(_ inside: String) -> String {
    if inside.hasPrefix("time_mixer.") { return inside }
    if inside == "mix_factor" { return "time_mixer.mix_factor" }
    guard inside.hasPrefix("time_stack.") else { return "spatial_res_block." + inside }
    let old = inside.dropFirst("time_stack.".count), dot = old.lastIndex(of: ".") ?? old.endIndex
    return "temporal_res_block." + (resnet[String(old[..<dot])] ?? String(old[..<dot])) + old[dot...]
  }
}

extension DerivedConfiguration {
  /// The keys of `UNetSpatioTemporalConditionModel`'s configuration.
  fileprivate struct VideoUNet: DerivedComponent {
    static let guesses = ConfigurationGuesses(
      ["sample_size", "num_frames", "addition_time_embed_dim"], ofWidth: ["num_attention_heads"], width: "block_out_channels")
    let _class_name = "UNetSpatioTemporalConditionModel"
    let sample_size = 96
    let in_channels: Int
    let out_channels: Int
    let down_block_types: [String]
    let up_block_types: [String]
    let block_out_channels: [Int]
    let layers_per_block: [Int]
    let transformer_layers_per_block: [LayerCounts]
    let cross_attention_dim: Int
    let num_attention_heads: [Int]
    let addition_time_embed_dim: Int
    let projection_class_embeddings_input_dim: Int
    /// The class's own: files of 14 and of 25 frames have the same tensors.
    let num_frames = 25
  }

  fileprivate static func videoUNet(_ tensors: Tensors) throws(Missing) -> VideoUNet {
    // Beside the frames' it is a network for pictures, with a resnet's convolutions under another name.
    let pictures = Dictionary(tensors.map { ($0.key.replacing(".spatial_res_block.", with: "."), $0.value) }) { first, _ in first }
    let base = try unet(pictures, latentSide: 96), inputs = try tensors.extent("add_embedding.linear_1.weight", 1, of: "U-Net")
    func types(_ types: [String]) -> [String] { types.map { $0.dropLast("2D".count) + "SpatioTemporal" } }
    return VideoUNet(
      in_channels: base.in_channels, out_channels: base.out_channels, down_block_types: types(base.down_block_types),
      up_block_types: types(base.up_block_types), block_out_channels: base.block_out_channels, layers_per_block: base.layers_per_block,
      transformer_layers_per_block: base.transformer_layers_per_block, cross_attention_dim: base.cross_attention_dim,
      // Heads of 64 channels.
      num_attention_heads: heads(base.block_out_channels, isLinear: true),
      // Frames a second, motion and noise.
      addition_time_embed_dim: max(1, inputs / 3), projection_class_embeddings_input_dim: inputs)
  }

  /// The keys of `AutoencoderKLTemporalDecoder`'s configuration.
  fileprivate struct VideoAutoencoder: DerivedComponent {
    static let guesses = ConfigurationGuesses(["sample_size", "scaling_factor"])
    let _class_name = "AutoencoderKLTemporalDecoder"
    let sample_size = 768
    let in_channels: Int
    let out_channels: Int
    let down_block_types: [String]
    let block_out_channels: [Int]
    let layers_per_block: Int
    let latent_channels: Int
    let scaling_factor: Double
  }

  fileprivate static func videoAutoencoder(_ tensors: Tensors) throws(Missing) -> VideoAutoencoder {
    let base = try autoencoder(tensors, pixels: 768)
    return VideoAutoencoder(
      in_channels: base.in_channels, out_channels: base.out_channels, down_block_types: base.down_block_types,
      block_out_channels: base.block_out_channels, layers_per_block: base.layers_per_block, latent_channels: base.latent_channels,
      scaling_factor: base.scaling_factor)
  }
}

extension String {
  /// A name cut behind the number that follows these words: "a.resnets.0.conv1" is "a.resnets.0" and "conv1".
  fileprivate func split(after words: String) -> (place: String, inside: String)? {
    guard let range = firstRange(of: words), let dot = self[range.upperBound...].firstIndex(of: ".") else { return nil }
    return (String(self[..<dot]), String(self[index(after: dot)...]))
  }
}
