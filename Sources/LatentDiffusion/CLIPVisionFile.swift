import Foundation
import LatentDiffusionImageEncoder
import LatentDiffusionWeights
import Tensor

/// CLIP's image tower in a single file: under transformers' names, or under OpenCLIP's, alone or beside a text tower. A `config.json` beside the file says
/// how it is built; otherwise its extents follow from the tensors' shapes, and the rest from what towers of such extents have in common.
struct CLIPVisionFile {
  /// The JSON of a `config.json`.
  let configuration: Data
  /// Under the names that `CLIPVisionModelWithProjection` asks for.
  let table: WeightTable

  private struct Configuration: Encodable {
    var hidden_size: Int
    var intermediate_size: Int
    var projection_dim: Int
    var num_hidden_layers: Int
    var num_attention_heads: Int
    var image_size: Int
    var patch_size: Int
    var hidden_act: String
  }

  /// - Throws: `ModelFilesError.notAModel` where there is no such tower, and what opening the file throws.
  init(_ url: URL) throws {
    let file = try TensorFileFormat.open(url)
    var tensors = file.tensors.below(["vision_model."])
    let isOpenCLIP = tensors.isEmpty
    if isOpenCLIP {
      tensors = Self.renamed(file.tensors.below(["visual.", "embedder.model.visual."]))
    } else {
      tensors["visual_projection.weight"] = file.tensors["visual_projection.weight"]
      tensors["embeddings.position_ids"] = nil
    }
    table = WeightTable(tensors)
    configuration =
      try CLIPImageEncoderFiles.contents(of: url.deletingLastPathComponent().appending(path: "config.json"))
      ?? Self.derived(tensors, isOpenCLIP: isOpenCLIP, path: url.path(percentEncoded: false))
  }

  /// OpenCLIP's tower below a prefix of a file that holds more, whose extents follow from the tensors' shapes.
  /// - Throws: `ModelFilesError.notAModel` where something is missing without which nothing is known of it.
  init(openCLIP file: any TensorFile, below prefix: String) throws(ModelFilesError) {
    let tensors = Self.renamed(file.tensors.below([prefix]))
    table = WeightTable(tensors)
    let isOpenAI = Self.isOpenAI(features: tensors["visual_projection.weight"]?.shape.extent(0) ?? 0)
    configuration = try Self.derived(tensors, isOpenCLIP: !isOpenAI, path: file.url.path(percentEncoded: false))
  }

  private static func renamed(_ openCLIP: [String: StoredTensor]) -> [String: StoredTensor] {
    var tensors = LDMKeys.openCLIP(openCLIP)
    tensors["visual_projection.weight"] = tensors.removeValue(forKey: "proj").map { $0.transposed() ?? $0 }
    return tensors
  }

  /// The length of a picture's projected state.
  var features: Int { table.tensors["visual_projection.weight"]?.shape.extent(0) ?? 0 }

  /// Whether a tower below an original model's prefix is OpenAI's, by the length of its projected state: OpenCLIP's are longer there.
  static func isOpenAI(features: Int) -> Bool { features == 768 }

  private static func derived(_ tensors: [String: StoredTensor], isOpenCLIP: Bool, path: String) throws(ModelFilesError) -> Data {
    func extent(_ name: String, _ axis: Int) throws(ModelFilesError) -> Int {
      guard let extent = tensors[name]?.shape.extent(axis) else {
        throw .notAModel(path: path, reason: "as an image encoder it lacks \(name)")
      }
      return extent
    }
    let hidden = try extent("embeddings.class_embedding", 0), patch = try extent("embeddings.patch_embedding.weight", 2)
    // A place for each patch, and one for the whole.
    let places = try extent("embeddings.position_embedding.weight", 0) - 1
    let side = Int(Double(max(places, 0)).squareRoot().rounded())
    let (size, overflows) = side.multipliedReportingOverflow(by: patch)
    return Configuration(
      hidden_size: hidden, intermediate_size: try extent("encoder.layers.0.mlp.fc1.weight", 0),
      projection_dim: try extent("visual_projection.weight", 0), num_hidden_layers: tensors.count(of: "encoder.layers."),
      // Towers are made wider by more heads of 64, and from 16 heads on by wider heads.
      num_attention_heads: hidden <= 1024 ? max(1, hidden / 64) : 16,
      image_size: overflows ? 0 : size, patch_size: patch,
      // OpenAI's towers, none of which is wider, are the only ones that came with their own activation.
      hidden_act: isOpenCLIP || hidden > 1024 ? "gelu" : "quick_gelu"
    ).json
  }
}
