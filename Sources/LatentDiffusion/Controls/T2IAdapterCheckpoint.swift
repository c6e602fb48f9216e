import LatentDiffusionWeights
import Tensor
import UNet

/// A single file with a T2I-Adapter: under the names of the original code, with `adapter.` in front or without, or under diffusers'.
///
/// Source of the correspondence: the original `adapter.py` beside diffusers' `T2IAdapter`.
struct T2IAdapterCheckpoint: CheckpointLayout {
  var marks: String { "tensors of a T2I-Adapter" }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    guard ForeignFile.isT2IAdapter(file.names) else { return nil }
    let prefixed = file.tensors.below(["adapter."]), own = prefixed.isEmpty ? file.tensors : prefixed
    let tensors = Self.renamed(own)
    guard let configuration = Configuration(tensors) else {
      throw ModelFilesError.notAModel(
        path: file.url.path(percentEncoded: false), reason: "its T2I-Adapter has not the shapes of one of the three known kinds")
    }
    let whole = tensors.reduce(into: [:]) { $0["adapter." + $1.key] = $1.value }
    let component = Checkpoint.Component(
      className: T2IAdapter.classNames[0], configuration: configuration.json, table: WeightTable(whole))
    let owners = file.names.reduce(into: [:]) { $0[$1] = "t2iadapter" }
    return Checkpoint(file: file, className: nil, components: ["t2iadapter": component], owners: owners, leftOver: [])
  }

  /// The original's names → diffusers'. The full adapter of the original counts the layers of all levels in one list; the light one calls its layers
  /// `body`.
  private static func renamed(_ tensors: LDMKeys.Tensors) -> LDMKeys.Tensors {
    let isFull = tensors.has("conv_in."), isOriginal = tensors.has("body.0.block1.") || tensors.has("body.0.body.")
    guard isOriginal else { return tensors }
    let blocks = tensors.count(of: "body.")
    // A level begins where the width changes; the first does so at the third layer of all published ones.
    let layers = (1..<max(blocks, 2)).first { tensors.has("body.\($0).in_conv.") } ?? 2
    func renamed(_ key: String) -> String {
      var parts = key.split(separator: ".").map(String.init)
      guard parts.count >= 4, parts[0] == "body", let block = Int(parts[1]) else { return key }
      guard isFull else {
        if parts[2] == "body" { parts[2] = "resnets" }
        return parts.joined(separator: ".")
      }
      let level = "body.\(block / layers)", inside = parts.dropFirst(2).joined(separator: ".")
      return parts[2] == "in_conv" ? "\(level).\(inside)" : "\(level).resnets.\(block % layers).\(inside)"
    }
    return tensors.named(renamed)
  }

  /// The keys of `T2IAdapter`'s configuration.
  private struct Configuration: Encodable {
    let _class_name = "T2IAdapter"
    let adapter_type: String
    let in_channels: Int
    let channels: [Int]
    let num_res_blocks: Int
    let downscale_factor: Int

    /// Nil where the shapes are those of no adapter.
    init?(_ tensors: LDMKeys.Tensors) {
      let blocks = tensors.count(of: "body.")
      let entering = tensors["conv_in.weight"]?.shape.extent(1) ?? tensors["body.0.in_conv.weight"]?.shape.extent(1) ?? 0
      // Squares of 8 pixels, or of 16 for SDXL, of grey or of colours.
      guard let (inputs, factor) = [64: (1, 8), 192: (3, 8), 256: (1, 16), 768: (3, 16)][entering] else { return nil }
      let isLight = tensors["conv_in.weight"] == nil
      let last = isLight ? "out_conv" : "resnets.0.block1"
      let widths = (0..<blocks).compactMap { tensors["body.\($0).\(last).weight"]?.shape.extent(0) }
      guard widths.count == blocks, blocks > 1 else { return nil }
      (in_channels, downscale_factor, num_res_blocks) = (inputs, factor, tensors.count(of: "body.0.resnets."))
      adapter_type = isLight ? "light_adapter" : factor == 16 ? "full_adapter_xl" : "full_adapter"
      // The light adapter repeats its last width.
      channels = isLight ? Array(widths.dropLast()) : widths
    }
  }
}
