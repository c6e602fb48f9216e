import LatentDiffusionComponents
import LatentDiffusionWeights
import Tensor
import UNet

extension ModelPart {
  /// The motion modules that a model may have beside its U-Net, or get from other files.
  static let motionAdapter = ModelPart(
    "motion_adapter", .predictor, words: "motion module", classNames: MotionAdapter.classNames, isOptional: true)
}

extension ModelParts {
  /// The U-Net, with motion modules where the model has some. Those beside it take the place of its own.
  func unet() throws -> UNet2DConditionModel {
    let unet: UNet2DConditionModel = try part("unet")
    guard let motion: MotionAdapter = optionalPart("motion_adapter") else { return unet }
    return try unet.adding(motion)
  }
}

extension ModelFiles {
  /// Whether the model draws clips.
  var hasMotion: Bool { components.contains("motion_adapter") || className(of: "unet") == "UNetMotionModel" }
}

/// A single file with motion modules: under the names of the original code, or under diffusers'.
///
/// Source of the correspondence: the original `motion_module.py` beside diffusers' `MotionAdapter`.
struct MotionAdapterCheckpoint: CheckpointLayout {
  var marks: String { "motion modules of AnimateDiff" }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    guard ForeignFile.isMotionModule(file.names) else { return nil }
    // Training on several devices leaves a prefix.
    let prefixed = file.tensors.below(["module."]), own = prefixed.isEmpty ? file.tensors : prefixed
    do throws(DerivedConfiguration.Missing) {
      let tensors = MotionKeys.diffusers(own)
      let component = Checkpoint.Component(
        className: MotionAdapter.classNames[0], configuration: try Configuration(tensors, frames: MotionKeys.frames(own)).json,
        table: WeightTable(tensors))
      return Checkpoint(
        file: file, className: nil, components: ["motion_adapter": component],
        owners: file.names.reduce(into: [:]) { $0[$1] = "motion_adapter" }, leftOver: [])
    } catch {
      throw ModelFilesError.notAModel(path: file.url.path(percentEncoded: false), reason: "its \(error.component) lacks \(error.what)")
    }
  }

  /// The keys of `MotionAdapter`'s configuration.
  private struct Configuration: Encodable {
    let _class_name = "MotionAdapter"
    let block_out_channels: [Int]
    let motion_layers_per_block: [Int]
    let motion_transformer_layers_per_block: [Int]
    let motion_transformer_layers_per_mid_block: [Int]
    /// No shape tells it; all published modules have as many.
    let motion_num_attention_heads = 8
    let motion_norm_num_groups: Int
    let motion_max_seq_length: Int
    let use_motion_mid_block: Bool
    let conv_in_channels: Int?

    init(_ tensors: LDMKeys.Tensors, frames: Int?) throws(DerivedConfiguration.Missing) {
      func blocks(_ place: String) -> Int { max(1, tensors.count(of: place + ".motion_modules.0.transformer_blocks.")) }
      let levels = tensors.count(of: "down_blocks.")
      guard DerivedConfiguration.levelCounts.contains(levels) else { throw .init(component: "motion module", what: "its blocks") }
      var channels: [Int] = []
      for level in 0..<levels {
        channels.append(try tensors.extent("down_blocks.\(level).motion_modules.0.norm.weight", 0, of: "motion module"))
      }
      block_out_channels = channels
      motion_layers_per_block = (0..<levels).map { max(1, tensors.count(of: "down_blocks.\($0).motion_modules.")) }
      motion_transformer_layers_per_block = (0..<levels).map { blocks("down_blocks.\($0)") }
      motion_transformer_layers_per_mid_block = [blocks("mid_block")]
      motion_norm_num_groups = DerivedConfiguration.groups(channels)
      motion_max_seq_length = frames ?? 32
      use_motion_mid_block = tensors.has("mid_block.motion_modules.")
      conv_in_channels = tensors["conv_in.weight"]?.shape.extent(1)
    }
  }
}

/// diffusers' names of motion modules, and the original code's.
enum MotionKeys {
  /// Words of the original's names, with what stands in their place; nil: nothing.
  private static let words: [(original: String, ours: String)] = [
    (".norms.0", ".norm1"), (".norms.1", ".norm2"), (".ff_norm", ".norm3"), (".attention_blocks.0", ".attn1"),
    (".attention_blocks.1", ".attn2"), (".temporal_transformer", ""),
  ]

  /// The tensors under diffusers' names. Positions of the original are left out: they can be computed exactly.
  static func diffusers(_ tensors: LDMKeys.Tensors) -> LDMKeys.Tensors {
    tensors.filter { !$0.key.contains("pos_encoder.") }.named { key in
      words.reduce(key) { $0.replacing($1.original, with: $1.ours) }
    }
  }

  /// The frames that there are positions for, as far as the tensors tell.
  static func frames(_ tensors: LDMKeys.Tensors) -> Int? {
    tensors.first { $0.key.hasSuffix("pos_encoder.pe") || $0.key.hasSuffix("pos_embed.pe") }?.value.shape.extent(1)
  }

  /// The original's names of the motion modules' layers, with diffusers' names.
  /// - Parameter parameters: diffusers' names of a component's parameters.
  static func originalModules(_ parameters: Set<String>) -> [String: String] {
    let inside = ["norm1": "norms.0", "norm2": "norms.1", "norm3": "ff_norm", "attn1": "attention_blocks.0", "attn2": "attention_blocks.1"]
    return parameters.reduce(into: [:]) { result, parameter in
      guard let dot = parameter.lastIndex(of: "."), let start = parameter.firstRange(of: ".motion_modules.") else { return }
      let module = parameter[..<dot], path = module[start.upperBound...].split(separator: ".").map(String.init)
      let names = [path[0], "temporal_transformer"] + path.dropFirst().map { inside[$0] ?? $0 }
      result[parameter[..<start.upperBound] + names.joined(separator: ".")] = String(module)
    }
  }
}
