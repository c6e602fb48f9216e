import Foundation
import Tensor

/// A single file with the keys of the original latent diffusion code: the whole of a Stable Diffusion 1.x or 2.x, with its 9-channel
/// (inpainting) and 8-channel (instruction editing) relatives.
///
/// Its tensors are given diffusers' names, without a copy: what was renamed, reshaped or cut still lies in the mapped file. Source of the
/// correspondence: the original code's modules (`openaimodel.py`, `model.py`) beside diffusers' classes.
struct LDMCheckpoint: Sendable {
  struct Component: Sendable {
    let className: String
    let configuration: Data
    /// Nil for what has no parameters.
    let table: WeightTable?
  }

  let file: SafetensorsFile
  let components: [String: Component]
  let ignoredTensors: Int

  private static let unetPrefix = "model.diffusion_model."
  private static let autoencoderPrefixes = ["first_stage_model.", "vae."]
  private static let clipPrefix = "cond_stage_model.transformer."
  private static let openCLIPPrefix = "cond_stage_model.model."

  /// - Throws: `ModelFilesError`.
  init(_ file: SafetensorsFile) throws {
    self.file = file
    let path = file.url.path(percentEncoded: false)
    func part(_ prefixes: String...) -> [String: StoredTensor] { file.table.below(prefixes) }
    let unet = LDMKeys.unet(part(Self.unetPrefix))
    let autoencoder = LDMKeys.autoencoder(part(Self.autoencoderPrefixes[0], Self.autoencoderPrefixes[1]))
    let clip = part(Self.clipPrefix)
    let openCLIP = part(Self.openCLIPPrefix)
    let text = openCLIP.isEmpty ? LDMKeys.clip(clip) : LDMKeys.openCLIP(openCLIP)
    guard !unet.isEmpty || !autoencoder.isEmpty || !text.isEmpty else {
      throw ModelFilesError.notAModel(path: path, reason: Self.guess(file.names))
    }
    if let family = Self.unsupportedFamily(file.names) { throw ModelFilesError.unsupported(path: path, family: family) }
    do throws(DerivedConfiguration.Missing) {
      let isVersion2 = !openCLIP.isEmpty || DerivedConfiguration.hasLinearProjections(unet)
      let scheduler = DerivedConfiguration.scheduler(file, isVersion2: isVersion2, inputChannels: unet["conv_in.weight"]?.shape.extent(1))
      // The original version 2 was trained at 768 pixels for v-prediction and at 512 for epsilon, version 1 at 512.
      let pixels = scheduler.prediction_type == "v_prediction" ? 768 : 512
      var components: [String: Component] = [:]
      if !autoencoder.isEmpty {
        let configuration = try DerivedConfiguration.autoencoder(autoencoder, pixels: pixels)
        components["vae"] = Component(className: "AutoencoderKL", configuration: configuration.json, table: WeightTable(autoencoder))
      }
      if !unet.isEmpty {
        let levels = autoencoder.isEmpty ? 4 : autoencoder.count(of: "encoder.down_blocks.")
        let configuration = try DerivedConfiguration.unet(unet, latentSide: pixels >> (levels - 1))
        components["unet"] = Component(className: "UNet2DConditionModel", configuration: configuration.json, table: WeightTable(unet))
        components["scheduler"] = Component(className: scheduler._class_name, configuration: scheduler.json, table: nil)
      }
      if !text.isEmpty {
        let configuration = try DerivedConfiguration.text(text, isOpenCLIP: !openCLIP.isEmpty)
        components["text_encoder"] = Component(className: "CLIPTextModel", configuration: configuration.json, table: WeightTable(text))
        let tokenizer = DerivedConfiguration.tokenizer(length: configuration.max_position_embeddings, isOpenCLIP: !openCLIP.isEmpty)
        components["tokenizer"] = Component(className: "CLIPTokenizer", configuration: tokenizer.json, table: nil)
      }
      self.components = components
    } catch {
      throw ModelFilesError.notAModel(path: path, reason: "its \(error.component) lacks \(error.what)")
    }
    let prefixes = [Self.unetPrefix, Self.clipPrefix, Self.openCLIPPrefix] + Self.autoencoderPrefixes
    ignoredTensors = file.names.count { name in !prefixes.contains { name.hasPrefix($0) } }
  }

  /// The pipeline of diffusers that such a U-Net belongs to.
  var className: String? {
    switch components["unet"]?.table?.tensors["conv_in.weight"]?.shape.extent(1) {
    case nil: nil
    case 9: "StableDiffusionInpaintPipeline"
    case 8: "StableDiffusionInstructPix2PixPipeline"
    default: "StableDiffusionPipeline"
    }
  }

  func component(_ name: String) throws(ModelFilesError) -> Component {
    guard let component = components[name] else { throw .noSuchComponent(name: name, model: file.url.path(percentEncoded: false)) }
    return component
  }

  /// The component that a tensor of such a file belongs to; nil for what belongs to none.
  static func component(of name: String) -> String? {
    if name.hasPrefix(unetPrefix) { return "unet" }
    if name.hasPrefix(clipPrefix) || name.hasPrefix(openCLIPPrefix) { return "text_encoder" }
    return autoencoderPrefixes.contains { name.hasPrefix($0) } ? "vae" : nil
  }

  private static func unsupportedFamily(_ names: Set<String>) -> String? {
    func has(_ prefix: String) -> Bool { names.contains { $0.hasPrefix(prefix) } }
    if has("conditioner.embedders.") || has("model.diffusion_model.label_emb.0.") { return "Stable Diffusion XL" }
    if has("model.diffusion_model.joint_blocks.") { return "Stable Diffusion 3" }
    if has("model.diffusion_model.double_blocks.") { return "Flux" }
    return nil
  }

  /// What a file without any known prefix may be.
  private static func guess(_ names: Set<String>) -> String {
    if names.contains(where: { $0.hasPrefix("down_blocks.") || $0.hasPrefix("encoder.down_blocks.") || $0.contains("encoder.layers.") }) {
      return "it holds one component of a model; give the folder that has model_index.json"
    }
    if names.contains(where: { $0.hasPrefix("lora_") || $0.contains(".lora") }) { return "it holds changes to a model (LoRA), not a model" }
    return "it has no tensors below model.diffusion_model, first_stage_model or cond_stage_model"
  }
}

extension WeightTable {
  /// The tensors whose names begin with one of the prefixes, without it.
  fileprivate func below(_ prefixes: [String]) -> [String: StoredTensor] {
    var result: [String: StoredTensor] = [:]
    for (name, tensor) in tensors {
      if let prefix = prefixes.first(where: { name.hasPrefix($0) }) { result[String(name.dropFirst(prefix.count))] = tensor }
    }
    return result
  }
}
