import Foundation
import LatentDiffusionWeights
import Tensor

/// A single file with the keys of the original latent diffusion code: the whole of a Stable Diffusion 1.x or 2.x, with its 9-channel
/// (inpainting), 8-channel (instruction editing), 7-channel (upscaling) and 5-channel (depth) relatives.
///
/// Its tensors are given diffusers' names, without a copy: what was renamed, reshaped or cut still lies in the mapped file. Source of the
/// correspondence: the original code's modules (`openaimodel.py`, `model.py`) beside diffusers' classes.
struct StableDiffusionCheckpoint: CheckpointLayout {
  static let unetPrefix = "model.diffusion_model."
  static let autoencoderPrefixes = ["first_stage_model.", "vae."]
  static let clipPrefixes = [
    "cond_stage_model.transformer.", "cond_stage_model.clip_l.transformer.", "cond_stage_model.clip_h.transformer.",
  ]
  static let openCLIPPrefix = "cond_stage_model.model."

  var marks: String { "tensors below model.diffusion_model, first_stage_model or cond_stage_model" }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    let others = [
      StableDiffusionXLCheckpoint.isMade, StableUnCLIPCheckpoint.isMade, StableVideoDiffusionCheckpoint.isMade, LDMCheckpoint.isMade,
    ]
    return others.contains { $0(file.names) } ? nil : try model(in: file)
  }

  /// What a file has of a Stable Diffusion, whatever else it holds.
  func model(in file: any TensorFile) throws -> Checkpoint? {
    let path = file.url.path(percentEncoded: false)
    let unet = LDMKeys.unet(file.tensors.below([Self.unetPrefix]))
    let autoencoder = LDMKeys.autoencoder(file.tensors.below(Self.autoencoderPrefixes))
    let clip = file.tensors.below(Self.clipPrefixes)
    let openCLIP = file.tensors.below([Self.openCLIPPrefix])
    guard !unet.isEmpty || !autoencoder.isEmpty || !clip.isEmpty || !openCLIP.isEmpty else { return nil }
    // Version 2 is known by its U-Net, whatever the names of its text encoder, which converters have written in both ways.
    let isVersion2 =
      unet.isEmpty ? !openCLIP.isEmpty || DerivedConfiguration.hasVersion2Width(clip) : DerivedConfiguration.hasLinearProjections(unet)
    let hasOpenCLIP = !openCLIP.isEmpty || isVersion2
    let text =
      openCLIP.isEmpty
      ? LDMKeys.clip(clip, layers: isVersion2 ? LDMKeys.version2Layers(clip) : nil)
      : LDMKeys.openCLIP(openCLIP, layers: LDMKeys.version2Layers(openCLIP))
    do throws(DerivedConfiguration.Missing) {
      var scheduler = DerivedConfiguration.scheduler(
        file, isVersion2: hasOpenCLIP, inputChannels: unet["conv_in.weight"]?.shape.extent(1))
      // The upscaler's classes are levels of noise, and it was trained with a noise table of its own.
      let isUpscaler = unet["class_embedding.weight"] != nil
      if isUpscaler { (scheduler.beta_start, scheduler.beta_end) = (0.0001, 0.02) }
      // The original version 2 was trained at 768 pixels for v-prediction and at 512 for epsilon, version 1 at 512, and so was the upscaler.
      let pixels = hasOpenCLIP && !isUpscaler && scheduler.prediction_type == "v_prediction" ? 768 : 512
      var components: [String: Checkpoint.Component] = [:]
      if !autoencoder.isEmpty {
        let configuration = try DerivedConfiguration.autoencoder(
          autoencoder, pixels: pixels, scale: isUpscaler ? 0.08333 : 0.18215)
        components["vae"] = Checkpoint.Component(configuration, autoencoder)
      }
      if !unet.isEmpty {
        let levels = autoencoder.isEmpty ? 4 : autoencoder.count(of: "encoder.down_blocks.")
        let configuration = try DerivedConfiguration.unet(unet, latentSide: pixels >> (levels - 1))
        components["unet"] = Checkpoint.Component(configuration, unet)
        components["scheduler"] = Checkpoint.Component(className: scheduler._class_name, configuration: scheduler.json, table: nil)
        if isUpscaler {
          components["low_res_scheduler"] = Checkpoint.Component(className: "DDPMScheduler", configuration: scheduler.json, table: nil)
        }
      }
      if !text.isEmpty {
        let configuration = try DerivedConfiguration.text(text, isOpenCLIP: hasOpenCLIP)
        components["text_encoder"] = Checkpoint.Component(configuration, text)
        let tokenizer = DerivedConfiguration.tokenizer(length: configuration.max_position_embeddings, isOpenCLIP: hasOpenCLIP)
        components["tokenizer"] = Checkpoint.Component(className: "CLIPTokenizer", configuration: tokenizer.json, table: nil)
      }
      let owners = file.names.reduce(into: [:]) { owners, name in owners[name] = Self.component(of: name) }
      let leftOver = file.names.filter { owners[$0] == nil && !DerivedConfiguration.isBookkeeping($0) }
      return Checkpoint(
        file: file, className: Self.className(unet), components: components, owners: owners, leftOver: Array(leftOver))
    } catch {
      throw ModelFilesError.notAModel(path: path, reason: "its \(error.component) lacks \(error.what)")
    }
  }

  /// The pipeline of diffusers that such a U-Net belongs to.
  static func className(_ unet: LDMKeys.Tensors, family: String = "StableDiffusion") -> String? {
    switch unet["conv_in.weight"]?.shape.extent(1) {
    case nil: nil
    case 9: family + "InpaintPipeline"
    case 8: family + "InstructPix2PixPipeline"
    case 7: family + "UpscalePipeline"
    case 5: family + "Depth2ImgPipeline"
    default: family + "Pipeline"
    }
  }

  /// The component that a tensor of such a file belongs to; nil for what belongs to none.
  private static func component(of name: String) -> String? {
    if name.hasPrefix(unetPrefix) { return "unet" }
    if name.hasPrefix(openCLIPPrefix) || clipPrefixes.contains(where: { name.hasPrefix($0) }) { return "text_encoder" }
    return autoencoderPrefixes.contains { name.hasPrefix($0) } ? "vae" : nil
  }
}

extension [String: StoredTensor] {
  /// The tensors whose names begin with one of the prefixes, without it.
  func below(_ prefixes: [String]) -> [String: StoredTensor] {
    var result: [String: StoredTensor] = [:]
    for (name, tensor) in self {
      if let prefix = prefixes.first(where: { name.hasPrefix($0) }) { result[String(name.dropFirst(prefix.count))] = tensor }
    }
    return result
  }
}
