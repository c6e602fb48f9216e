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

  let file: any TensorFile
  let components: [String: Component]
  /// Tensors that belong to no component: averages and noise tables that training keeps, and the left-over ones.
  let ignoredTensors: Int
  /// Those of them that are nothing known, sorted.
  let leftOver: [String]

  private static let unetPrefix = "model.diffusion_model."
  private static let autoencoderPrefixes = ["first_stage_model.", "vae."]
  private static let clipPrefixes = [
    "cond_stage_model.transformer.", "cond_stage_model.clip_l.transformer.", "cond_stage_model.clip_h.transformer.",
  ]
  private static let openCLIPPrefix = "cond_stage_model.model."

  /// - Throws: `ModelFilesError`.
  init(_ file: any TensorFile) throws {
    self.file = file
    let path = file.url.path(percentEncoded: false)
    if let foreign = ForeignFile(names: file.names) { throw ModelFilesError.foreign(path: path, foreign) }
    let unet = LDMKeys.unet(file.table.below([Self.unetPrefix]))
    let autoencoder = LDMKeys.autoencoder(file.table.below(Self.autoencoderPrefixes))
    let clip = file.table.below(Self.clipPrefixes)
    let openCLIP = file.table.below([Self.openCLIPPrefix])
    guard !unet.isEmpty || !autoencoder.isEmpty || !clip.isEmpty || !openCLIP.isEmpty else {
      throw ModelFilesError.notAModel(
        path: path, reason: "it has no tensors below model.diffusion_model, first_stage_model or cond_stage_model")
    }
    // Version 2 is known by its U-Net, whatever the names of its text encoder, which converters have written in both ways.
    let isVersion2 =
      unet.isEmpty ? !openCLIP.isEmpty || DerivedConfiguration.hasVersion2Width(clip) : DerivedConfiguration.hasLinearProjections(unet)
    let hasOpenCLIP = !openCLIP.isEmpty || isVersion2
    let text =
      openCLIP.isEmpty
      ? LDMKeys.clip(clip, layers: isVersion2 ? LDMKeys.version2Layers(clip) : nil)
      : LDMKeys.openCLIP(openCLIP, layers: LDMKeys.version2Layers(openCLIP))
    do throws(DerivedConfiguration.Missing) {
      let scheduler = DerivedConfiguration.scheduler(
        file, isVersion2: hasOpenCLIP, inputChannels: unet["conv_in.weight"]?.shape.extent(1))
      // The original version 2 was trained at 768 pixels for v-prediction and at 512 for epsilon, version 1 at 512.
      let pixels = hasOpenCLIP && scheduler.prediction_type == "v_prediction" ? 768 : 512
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
        let configuration = try DerivedConfiguration.text(text, isOpenCLIP: hasOpenCLIP)
        components["text_encoder"] = Component(className: "CLIPTextModel", configuration: configuration.json, table: WeightTable(text))
        let tokenizer = DerivedConfiguration.tokenizer(length: configuration.max_position_embeddings, isOpenCLIP: hasOpenCLIP)
        components["tokenizer"] = Component(className: "CLIPTokenizer", configuration: tokenizer.json, table: nil)
      }
      self.components = components
    } catch {
      throw ModelFilesError.notAModel(path: path, reason: "its \(error.component) lacks \(error.what)")
    }
    let ignored = file.names.filter { Self.component(of: $0) == nil }
    ignoredTensors = ignored.count
    leftOver = ignored.filter { !DerivedConfiguration.isBookkeeping($0) }.sorted()
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
    if name.hasPrefix(openCLIPPrefix) || clipPrefixes.contains(where: { name.hasPrefix($0) }) { return "text_encoder" }
    return autoencoderPrefixes.contains { name.hasPrefix($0) } ? "vae" : nil
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
