import Foundation
import LatentDiffusionWeights
import Tensor

/// A single file of the original code that holds one of the first latent diffusion models: without text, of classes, or with a transformer that reads texts.
/// Source: the original code's `latent-diffusion` configurations beside diffusers' `LDMPipeline` and `LDMTextToImagePipeline`.
struct LDMCheckpoint: CheckpointLayout {
  private static let classTable = "cond_stage_model.embedding.weight"
  private static let textPrefix = "cond_stage_model.transformer."

  /// What a model is told.
  private enum Kind {
    case nothing, classes, text

    init?(_ names: Set<String>) {
      guard names.contains(where: { $0.hasPrefix(StableDiffusionCheckpoint.unetPrefix) }) else { return nil }
      if names.contains(LDMCheckpoint.classTable) {
        self = .classes
      } else if names.contains(LDMCheckpoint.textPrefix + "token_emb.weight") {
        self = .text
      } else if !names.contains(where: { $0.hasPrefix("cond_stage_model.") || $0.contains(".attn2.") }),
        names.contains(where: { $0.hasSuffix(".qkv.weight") })
      {
        self = .nothing
      } else {
        return nil
      }
    }
  }

  var marks: String { "cond_stage_model.embedding or cond_stage_model.transformer.token_emb" }

  static func isMade(of names: Set<String>) -> Bool { Kind(names) != nil }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    guard let kind = Kind(file.names) else { return nil }
    do throws(DerivedConfiguration.Missing) {
      let autoencoder = LDMKeys.autoencoder(file.tensors.below(StableDiffusionCheckpoint.autoencoderPrefixes))
      let isQuantized = autoencoder["quantize.embedding.weight"] != nil
      let configuration = try DerivedConfiguration.autoencoder(
        autoencoder, pixels: Self.pixels, scale: isQuantized ? 1 : file.number("scale_factor") ?? 0.18215)
      let side = Self.pixels >> (configuration.block_out_channels.count - 1)
      var components = ["vqvae": Checkpoint.Component(configuration, autoencoder)]
      components["unet"] = try unet(file, kind, latentSide: side)
      components["scheduler"] = scheduler(file, kind)
      switch kind {
      case .nothing: break
      case .classes:
        let table = file.tensors[Self.classTable]
        let embedder = ClassTable(n_classes: table?.shape.extent(0) ?? 0, embed_dim: table?.shape.extent(1) ?? 0)
        components["class_embedder"] = Checkpoint.Component(
          className: "ClassEmbedder", configuration: embedder.json,
          table: WeightTable(["embedding.weight": table].compactMapValues(\.self)))
      case .text:
        let bert = LDMKeys.bert(file.tensors.below([Self.textPrefix]))
        components["bert"] = Checkpoint.Component(try Bert(bert), bert)
      }
      let owners = file.names.reduce(into: [:]) { owners, name in owners[name] = Self.component(of: name) }
      let leftOver = file.names.filter { owners[$0] == nil && !DerivedConfiguration.isBookkeeping($0) }
      return Checkpoint(
        file: file, className: kind == .text ? "LDMTextToImagePipeline" : "LDMPipeline", components: components, owners: owners,
        leftOver: Array(leftOver))
    } catch {
      throw ModelFilesError.notAModel(
        path: file.url.path(percentEncoded: false), reason: "its \(error.component) lacks \(error.what)")
    }
  }

  /// All published models of the kind were trained on pictures of so many pixels a side.
  private static let pixels = 256

  private func unet(_ file: any TensorFile, _ kind: Kind, latentSide: Int) throws(DerivedConfiguration.Missing) -> Checkpoint.Component {
    let tensors = LDMKeys.unet(file.tensors.below([StableDiffusionCheckpoint.unetPrefix]))
    if kind == .nothing {
      let channels = DerivedConfiguration.headChannels(tensors)
      let split = LDMKeys.pixelAttention(tensors, headChannels: channels)
      return Checkpoint.Component(try DerivedConfiguration.unet2D(split, latentSide: latentSide, headChannels: channels), split)
    }
    // The models of classes have one head everywhere, those that read texts as many as Stable Diffusion.
    return Checkpoint.Component(
      try DerivedConfiguration.unet(tensors, latentSide: latentSide, heads: kind == .classes ? 1 : nil), tensors)
  }

  /// The noise table is in the file, as the original code keeps it.
  private func scheduler(_ file: any TensorFile, _ kind: Kind) -> Checkpoint.Component {
    var scheduler = DerivedConfiguration.scheduler(file, isVersion2: false, inputChannels: nil, className: "DDIMScheduler")
    if kind != .text { (scheduler.beta_start, scheduler.beta_end) = (0.0015, 0.0195) }
    if let betas = file.numbers("betas"), let first = betas.first, let last = betas.last {
      // As people write them: the file has them as float32.
      func written(_ beta: Float) -> Double { (Double(beta) * 1e7).rounded() / 1e7 }
      (scheduler.beta_start, scheduler.beta_end) = (written(first), written(last))
    }
    return Checkpoint.Component(className: scheduler._class_name, configuration: scheduler.json, table: nil)
  }

  private struct ClassTable: Encodable {
    let _class_name = "ClassEmbedder"
    let n_classes: Int
    let embed_dim: Int
  }

  /// The keys of `LDMBertConfig`.
  private struct Bert: DerivedComponent {
    static let guesses = ConfigurationGuesses(["encoder_attention_heads", "head_dim"])
    let _class_name = "LDMBertModel"
    let vocab_size: Int
    let max_position_embeddings: Int
    let encoder_layers: Int
    let encoder_ffn_dim: Int
    let encoder_attention_heads = 8
    let head_dim: Int
    let d_model: Int

    init(_ tensors: LDMKeys.Tensors) throws(DerivedConfiguration.Missing) {
      func extent(_ name: String, _ axis: Int) throws(DerivedConfiguration.Missing) -> Int {
        try tensors.extent("model." + name, axis, of: "text encoder")
      }
      (vocab_size, d_model) = (try extent("embed_tokens.weight", 0), try extent("embed_tokens.weight", 1))
      max_position_embeddings = try extent("embed_positions.weight", 0)
      encoder_layers = tensors.count(of: "model.layers.")
      encoder_ffn_dim = try extent("layers.0.fc1.weight", 0)
      head_dim = try extent("layers.0.self_attn.q_proj.weight", 0) / encoder_attention_heads
    }
  }

  private static func component(of name: String) -> String? {
    if name.hasPrefix(StableDiffusionCheckpoint.unetPrefix) { return "unet" }
    if name == classTable { return "class_embedder" }
    if name.hasPrefix(textPrefix) { return "bert" }
    return StableDiffusionCheckpoint.autoencoderPrefixes.contains { name.hasPrefix($0) } ? "vqvae" : nil
  }
}

extension TensorFile {
  /// The numbers of a vector; nil where there is none of this name.
  fileprivate func numbers(_ name: String) -> [Float]? {
    guard let stored = tensors[name], stored.shape.count <= 1 << 20 else { return nil }
    return (try? tensor(name, shape: stored.shape))?.decoded().elements
  }

  /// The only number of a tensor.
  fileprivate func number(_ name: String) -> Double? { numbers(name).flatMap { $0.count == 1 ? Double($0[0]) : nil } }
}
