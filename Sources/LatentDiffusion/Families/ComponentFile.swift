import Foundation
import LatentDiffusionWeights
import Tensor

/// A single file that holds one component, under the names of diffusers and transformers or of the original code, with or without the prefix that it has in a
/// file of a whole model: what programs with separate files for U-Net, autoencoder and text encoder keep.
///
/// The configuration follows from the tensors' shapes. Beside a U-Net there is the scheduler, and beside a text encoder the tokenizer of such models.
struct ComponentFile: CheckpointLayout {
  /// The class of the text encoder in whose place this one comes, and how many layers it uses, which no tensor tells.
  var textClass = "CLIPTextModel"
  var textLayers: Int?
  /// The other half of a tiny autoencoder, whose decoder the file is to be.
  var encoder: (any TensorFile)?

  var marks: String { "tensors of a single component" }

  private typealias Tensors = [String: StoredTensor]

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    let readers = [
      ("unet", Self.unetPrefixes, Self.isUNet), ("vae", Self.autoencoderPrefixes, Self.isAutoencoder),
      ("text_encoder", Self.textPrefixes, Self.isText),
    ]
    var found: [(name: String, tensors: Tensors, owned: Set<String>)] = []
    for (name, prefixes, isKind) in readers {
      let bare = prefixes.lazy.map { ($0, file.tensors.below([$0])) }.first { isKind($0.1) }
      if let (prefix, tensors) = bare { found.append((name, tensors, file.names.filter { $0.hasPrefix(prefix) })) }
    }
    if let tiny = TinyAutoencoderKeys.tensors(file.tensors) { found.append(("vae", try withEncoder(tiny.tensors, in: file), tiny.owned)) }
    if let encoder, found.count != 1 || found[0].tensors.keys.allSatisfy({ !$0.hasPrefix("encoder.layers.") }) {
      throw Self.notHalves(encoder, file)
    }
    // Several are a whole model, which has a layout of its own, as SDXL has with its text encoders.
    guard found.count == 1, !StableDiffusionXLCheckpoint.isMade(of: file.names), !StableVideoDiffusionCheckpoint.isMade(of: file.names),
      let part = found.first
    else { return nil }
    do throws(DerivedConfiguration.Missing) {
      let components = try components(part.name, part.tensors, file)
      let leftOver = file.names.subtracting(part.owned).filter { !DerivedConfiguration.isBookkeeping($0) }
      return Checkpoint(
        file: file, className: part.name == "unet" ? StableDiffusionCheckpoint.className(LDMKeys.unet(part.tensors)) : nil,
        components: components, owners: part.owned.reduce(into: [:]) { $0[$1] = part.name }, leftOver: Array(leftOver))
    } catch {
      throw ModelFilesError.notAModel(path: file.url.path(percentEncoded: false), reason: "its \(error.component) lacks \(error.what)")
    }
  }

  /// A tiny autoencoder's decoder with the encoder of the other file.
  private func withEncoder(_ tensors: Tensors, in file: any TensorFile) throws(ModelFilesError) -> Tensors {
    guard let encoder else { return tensors }
    let other = TinyAutoencoderKeys.tensors(encoder.tensors)?.tensors ?? [:]
    guard tensors.keys.allSatisfy({ $0.hasPrefix("decoder.") }), !other.isEmpty, other.keys.allSatisfy({ $0.hasPrefix("encoder.") }) else {
      throw Self.notHalves(encoder, file)
    }
    return tensors.merging(other) { first, _ in first }
  }

  private static func notHalves(_ encoder: any TensorFile, _ decoder: any TensorFile) -> ModelFilesError {
    .notAModel(
      path: encoder.url.path(percentEncoded: false),
      reason: "it is to be the encoder of a tiny autoencoder, and \(decoder.url.lastPathComponent) its decoder, and they are not")
  }

  private func components(
    _ name: String, _ tensors: Tensors, _ file: any TensorFile
  ) throws(DerivedConfiguration.Missing) -> [String: Checkpoint.Component] {
    switch name {
    case "unet":
      // SDXL's U-Net has no attention at its highest resolution. What unCLIP's has under the same name is a class.
      let isXL = tensors["input_blocks.1.1.norm.weight"] == nil
      let unet = LDMKeys.unet(tensors, labels: isXL ? "add_embedding" : "class_embedding")
      let inputChannels = unet["conv_in.weight"]?.shape.extent(1)
      if let inputs = unet["add_embedding.linear_1.weight"]?.shape.extent(1) {
        let scheduler = DerivedConfiguration.scheduler(
          file, isVersion2: false, inputChannels: inputChannels, className: "EulerDiscreteScheduler")
        // Six numbers of 256 channels, as the published models have them; the refiner has five.
        let numbers = inputs >= 6 * 256 + 1280 ? 6 : 5
        return [
          name: .init(
            try DerivedConfiguration.unetXL(unet, latentSide: 128, pooled: max(0, inputs - numbers * 256), numbers: numbers), unet),
          "scheduler": .init(className: scheduler._class_name, configuration: scheduler.json, table: nil),
        ]
      }
      let scheduler = DerivedConfiguration.scheduler(
        file, isVersion2: DerivedConfiguration.hasLinearProjections(unet), inputChannels: inputChannels)
      // All published autoencoders of such models have eight pixels a side for each latent.
      let side = scheduler.prediction_type == "v_prediction" ? 96 : 64
      return [
        name: .init(try DerivedConfiguration.unet(unet, latentSide: side), unet),
        "scheduler": .init(className: scheduler._class_name, configuration: scheduler.json, table: nil),
      ]
    case "text_encoder":
      let isOpenCLIP = tensors["positional_embedding"] != nil
      let isVersion2 = isOpenCLIP || DerivedConfiguration.hasVersion2Width(tensors)
      let projects = textClass == "CLIPTextModelWithProjection"
      let layers = textLayers ?? (isVersion2 && !projects ? LDMKeys.version2Layers(tensors) : nil)
      let text =
        isOpenCLIP ? LDMKeys.openCLIP(tensors, layers: layers, projects: projects) : LDMKeys.clip(tensors, layers: projects ? nil : layers)
      let configuration = try DerivedConfiguration.text(text, isOpenCLIP: isVersion2, className: textClass)
      let tokenizer = DerivedConfiguration.tokenizer(length: configuration.max_position_embeddings, isOpenCLIP: isVersion2)
      return [
        name: .init(configuration, text),
        "tokenizer": .init(className: "CLIPTokenizer", configuration: tokenizer.json, table: nil),
      ]
    default:
      if TinyAutoencoderKeys.isTiny(tensors) { return [name: .init(try DerivedConfiguration.tinyAutoencoder(tensors), tensors)] }
      let autoencoder = WeightTable(LDMKeys.autoencoder(tensors)).renamed(KeyNames.autoencoder).tensors
      return [name: .init(try DerivedConfiguration.autoencoder(autoencoder, pixels: 512), autoencoder)]
    }
  }

  // MARK: what is in a file

  private static let unetPrefixes = [StableDiffusionCheckpoint.unetPrefix, "diffusion_model.", "unet.", ""]
  private static let autoencoderPrefixes = StableDiffusionCheckpoint.autoencoderPrefixes + [""]
  private static let textPrefixes =
    StableDiffusionCheckpoint.clipPrefixes + [StableDiffusionCheckpoint.openCLIPPrefix, "text_encoder.", ""]

  private static func isUNet(_ tensors: Tensors) -> Bool {
    tensors["input_blocks.0.0.weight"] != nil || tensors["conv_in.weight"] != nil && tensors["time_embedding.linear_1.weight"] != nil
  }

  private static func isAutoencoder(_ tensors: Tensors) -> Bool {
    tensors["decoder.conv_in.weight"] != nil && tensors["decoder.conv_out.weight"] != nil
  }

  private static func isText(_ tensors: Tensors) -> Bool {
    let embeddings = ["text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight", "token_embedding.weight"]
    return embeddings.contains { tensors[$0] != nil }
  }
}
