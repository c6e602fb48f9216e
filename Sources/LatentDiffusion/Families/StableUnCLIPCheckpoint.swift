import Foundation
import LatentDiffusionWeights
import Tensor

/// A single file of the original code that holds Stable unCLIP: a Stable Diffusion 2 with an image tower. Source: the original code's
/// `ImageEmbeddingConditionedLatentDiffusion` beside diffusers' `StableUnCLIPImg2ImgPipeline`.
struct StableUnCLIPCheckpoint: CheckpointLayout {
  private static let towerPrefix = "embedder.model.visual."
  private static let noisePrefix = "noise_augmentor."

  var marks: String { "tensors below embedder.model.visual" }

  static func isMade(of names: Set<String>) -> Bool { names.contains { $0.hasPrefix(towerPrefix) || $0.hasPrefix(noisePrefix) } }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    guard Self.isMade(of: file.names) else { return nil }
    let tower = try CLIPVisionFile(openCLIP: file, below: Self.towerPrefix)
    guard let base = try StableDiffusionCheckpoint().model(in: file) else { return nil }
    var components = base.components, owners = base.owners
    components["image_encoder"] = Checkpoint.Component(
      className: "CLIPVisionModelWithProjection", configuration: tower.configuration, table: tower.table,
      guesses: ConfigurationGuesses(["hidden_act", "num_attention_heads"]))
    for name in file.names where name.hasPrefix(Self.towerPrefix) { owners[name] = "image_encoder" }
    let normalizer = try self.normalizer(file, features: tower.features)
    components["image_normalizer"] = normalizer
    for name in Self.statistics where file.tensors[Self.noisePrefix + name] != nil { owners[Self.noisePrefix + name] = "image_normalizer" }
    components["image_noising_scheduler"] = Checkpoint.Component(
      className: "DDPMScheduler", configuration: NoisingScheduler().json, table: nil)
    let leftOver = base.leftOver.filter { owners[$0] == nil && !Self.isBookkeeping($0) }
    return Checkpoint(file: file, className: "StableUnCLIPImg2ImgPipeline", components: components, owners: owners, leftOver: leftOver)
  }

  /// The tables of the noise, and what stays of the text tower beside the image tower, whose blocks the original code takes out.
  private static func isBookkeeping(_ name: String) -> Bool {
    name.hasPrefix(noisePrefix) || name.hasPrefix("embedder.")
  }

  private struct NoisingScheduler: Encodable {
    let _class_name = "DDPMScheduler"
    let beta_schedule = "squaredcos_cap_v2"
    let num_train_timesteps = 1000
  }

  private struct Normalizer: Encodable {
    let _class_name = "StableUnCLIPImageNormalizer"
    let embedding_dim: Int
  }

  private static let statistics = ["data_mean", "data_std"]

  /// The statistics of the tower's states. The original code keeps them in a file of its own, for OpenAI's tower, and has none for OpenCLIP's.
  private func normalizer(_ file: any TensorFile, features: Int) throws(ModelFilesError) -> Checkpoint.Component {
    var tensors: [String: StoredTensor] = [:]
    for (name, own, usual) in [(Self.statistics[0], "mean", Float(0)), (Self.statistics[1], "std", 1)] {
      let stored = file.tensors[Self.noisePrefix + name]
      guard stored != nil || !CLIPVisionFile.isOpenAI(features: features) else {
        throw .notAModel(
          path: file.url.path(percentEncoded: false),
          reason: "as a Stable unCLIP it lacks \(Self.noisePrefix)\(name), which is in a file of its own; give the folder of the model")
      }
      tensors[own] = stored?.reshaped([1, features]) ?? stored ?? Self.constant(usual, features)
    }
    return Checkpoint.Component(
      className: "StableUnCLIPImageNormalizer", configuration: Normalizer(embedding_dim: features).json, table: WeightTable(tensors))
  }

  private static func constant(_ value: Float, _ count: Int) -> StoredTensor {
    let values = Tensor(repeating: value, shape: [1, count])
    return StoredTensor(shape: values.shape, elementType: "F32", data: WeightTensor(values).data)
  }
}
