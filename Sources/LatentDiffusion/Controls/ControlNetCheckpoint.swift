import LatentDiffusionWeights
import Tensor
import UNet

/// A single file with a ControlNet: under the names of the original code, with `control_model.` in front or without, or under diffusers'.
///
/// Source of the correspondence: the original `cldm.py` beside diffusers' `ControlNetModel`.
struct ControlNetCheckpoint: CheckpointLayout {
  private static let prefix = "control_model."

  var marks: String { "tensors of a ControlNet" }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    // A whole training checkpoint has the model beside it, under another prefix.
    let prefixed = file.tensors.below([Self.prefix])
    let own = prefixed.isEmpty ? file.tensors : prefixed
    guard ForeignFile.isControlNet(file.names) else { return nil }
    guard !file.names.contains(where: { $0.contains("motion_modules.") }) else {
      throw ModelFilesError.foreign(
        path: file.url.path(percentEncoded: false),
        ForeignFile("a SparseCtrl of AnimateDiff, which is not supported", "give a ControlNet for pictures"))
    }
    let tensors = LDMKeys.controlNet(own)
    let owned = file.names.filter { prefixed.isEmpty || $0.hasPrefix(Self.prefix) }
    do throws(DerivedConfiguration.Missing) {
      let component = Checkpoint.Component(
        className: ControlNetModel.classNames[0], configuration: try DerivedConfiguration.controlNet(tensors).json,
        table: WeightTable(tensors))
      return Checkpoint(
        file: file, className: nil, components: ["controlnet": component],
        owners: Dictionary(owned.map { ($0, "controlnet") }) { first, _ in first }, leftOver: Array(file.names.subtracting(owned)))
    } catch {
      throw ModelFilesError.notAModel(path: file.url.path(percentEncoded: false), reason: "its \(error.component) lacks \(error.what)")
    }
  }
}

extension LDMKeys {
  /// `ControlNet` of the original → diffusers' `ControlNetModel`.
  static func controlNet(_ tensors: Tensors) -> Tensors {
    // Two layers for each of the blocks, then the last one. What lies between them in the original has no parameters.
    let hints = Set(
      tensors.keys.filter { $0.hasPrefix("input_hint_block.") }.compactMap {
        $0.split(separator: ".").dropFirst().first.flatMap { Int($0) }
      }
    ).sorted()
    return unet(tensors, labels: "add_embedding").named { key in
      let parts = key.split(separator: ".").map(String.init)
      switch (parts.first, parts.count) {
      case ("input_hint_block", 3):
        let place = Int(parts[1]).flatMap(hints.firstIndex) ?? 0
        let layer = place == 0 ? "conv_in" : place == hints.count - 1 ? "conv_out" : "blocks.\(place - 1)"
        return "controlnet_cond_embedding.\(layer).\(parts[2])"
      case ("zero_convs", 4): return "controlnet_down_blocks.\(parts[1]).\(parts[3])"
      case ("middle_block_out", 3): return "controlnet_mid_block.\(parts[2])"
      default: return key
      }
    }
  }
}

extension LDMKeys.Tensors {
  /// The tensors under new names. Where two claim one, the second by its old name keeps that, so that a load report shows it.
  func named(_ rename: (String) -> String) -> LDMKeys.Tensors {
    keys.sorted().reduce(into: [:]) { result, key in
      let new = rename(key)
      result[result[new] == nil ? new : key] = self[key]
    }
  }
}

extension DerivedConfiguration {
  /// The keys of `ControlNetModel`'s configuration.
  struct ControlNet: Encodable {
    let _class_name = "ControlNetModel"
    let in_channels: Int
    let conditioning_channels: Int
    let conditioning_embedding_out_channels: [Int]
    let down_block_types: [String]
    let mid_block_type: Nullable
    let block_out_channels: [Int]
    let layers_per_block: [Int]
    let transformer_layers_per_block: [Int]
    let cross_attention_dim: Int
    let attention_head_dim: [Int]
    let use_linear_projection: Bool
    let norm_num_groups: Int
    let addition_embed_type: String?
    let addition_time_embed_dim: Int?
    let projection_class_embeddings_input_dim: Int?
  }

  static func controlNet(_ tensors: Tensors) throws(Missing) -> ControlNet {
    func extent(_ name: String, _ axis: Int) throws(Missing) -> Int { try tensors.extent(name, axis, of: "ControlNet") }
    let levels = tensors.count(of: "down_blocks."), hint = "controlnet_cond_embedding."
    guard levelCounts.contains(levels), let transformer = tensors.transformer(in: "mid_block.") ?? tensors.transformer(in: "") else {
      throw Missing(component: "ControlNet", what: "its blocks, or all attention to text")
    }
    var channels: [Int] = []
    for level in 0..<levels { channels.append(try extent("down_blocks.\(level).resnets.0.conv2.weight", 0)) }
    let middle = tensors.count(of: "mid_block.attentions.0.transformer_blocks."), isLinear = hasLinearProjections(tensors)
    let depths = (0..<levels).map { tensors.count(of: "down_blocks.\($0).attentions.0.transformer_blocks.") }
    var hints = [try extent(hint + "conv_in.weight", 0)]
    for block in 0..<tensors.count(of: hint + "blocks.") where block % 2 == 1 {
      hints.append(try extent(hint + "blocks.\(block).weight", 0))
    }
    let told = tensors["add_embedding.linear_1.weight"]?.shape.extent(1)
    return ControlNet(
      in_channels: try extent("conv_in.weight", 1), conditioning_channels: try extent(hint + "conv_in.weight", 1),
      conditioning_embedding_out_channels: hints, down_block_types: depths.map { $0 > 0 ? "CrossAttnDownBlock2D" : "DownBlock2D" },
      mid_block_type: Nullable(
        text: middle > 0 ? "UNetMidBlock2DCrossAttn" : tensors.has("mid_block.resnets.") ? "UNetMidBlock2D" : nil),
      block_out_channels: channels, layers_per_block: (0..<levels).map { tensors.count(of: "down_blocks.\($0).resnets.") },
      // The last level may have attention in the middle alone.
      transformer_layers_per_block: depths.enumerated().map { $1 > 0 ? $1 : $0 == levels - 1 && middle > 0 ? middle : 1 },
      cross_attention_dim: try extent(transformer + "transformer_blocks.0.attn2.to_k.weight", 1),
      attention_head_dim: heads(channels, isLinear: isLinear), use_linear_projection: isLinear,
      norm_num_groups: groups(channels), addition_embed_type: told.map { _ in "text_time" },
      // No shape tells how many of the inputs are numbers; all published models have them embedded so.
      addition_time_embed_dim: told.map { _ in 256 }, projection_class_embeddings_input_dim: told)
  }
}
