import Foundation
import LatentDiffusionWeights
import Tensor

/// A single file with the keys of the original code of SDXL: base with two text encoders, or refiner with one, and their 9- and 8-channel relatives.
///
/// Source of the correspondence: the modules of Stability's `generative-models` beside diffusers' classes.
struct StableDiffusionXLCheckpoint: CheckpointLayout {
  private static let embedders = "conditioner.embedders."
  private static let clipPrefix = "conditioner.embedders.0.transformer."
  /// Of the base, and of the refiner, which has this one alone.
  private static let openCLIPPrefixes = ["conditioner.embedders.1.model.", "conditioner.embedders.0.model."]

  var marks: String { "tensors below conditioner.embedders" }

  /// Whether a file has this layout. Files of Stable Video Diffusion have embedders, too, but of pictures.
  static func isMade(of names: Set<String>) -> Bool {
    names.contains { $0.hasPrefix(embedders) } && !StableVideoDiffusionCheckpoint.isMade(of: names)
  }

  func checkpoint(of file: any TensorFile) throws -> Checkpoint? {
    guard Self.isMade(of: file.names) else { return nil }
    let unet = LDMKeys.unet(file.tensors.below([StableDiffusionCheckpoint.unetPrefix]), labels: "add_embedding")
    let autoencoder = LDMKeys.autoencoder(file.tensors.below(StableDiffusionCheckpoint.autoencoderPrefixes))
    let clip = LDMKeys.clip(file.tensors.below([Self.clipPrefix]))
    let openCLIP = LDMKeys.openCLIP(file.tensors.below(Self.openCLIPPrefixes), projects: true)
    let isRefiner = clip.isEmpty
    do throws(DerivedConfiguration.Missing) {
      var components: [String: Checkpoint.Component] = [:]
      let scheduler = DerivedConfiguration.scheduler(
        file, isVersion2: false, inputChannels: unet["conv_in.weight"]?.shape.extent(1), className: "EulerDiscreteScheduler")
      if !autoencoder.isEmpty {
        components["vae"] = .init(try DerivedConfiguration.autoencoder(autoencoder, pixels: 1024, scale: 0.13025), autoencoder)
      }
      if !unet.isEmpty {
        let levels = autoencoder.isEmpty ? 4 : autoencoder.count(of: "encoder.down_blocks.")
        let pooled = openCLIP["text_projection.weight"]?.shape.extent(0) ?? 0
        // Original size, crop and target size, or the aesthetic score instead of the last.
        components["unet"] = .init(
          try DerivedConfiguration.unetXL(unet, latentSide: 1024 >> (levels - 1), pooled: pooled, numbers: isRefiner ? 5 : 6), unet)
        components["scheduler"] = .init(className: scheduler._class_name, configuration: scheduler.json, table: nil)
      }
      for (suffix, text, isOpenCLIP) in [("", clip, false), ("_2", openCLIP, true)] where !text.isEmpty {
        let configuration = try DerivedConfiguration.text(
          text, isOpenCLIP: isOpenCLIP, className: isOpenCLIP ? "CLIPTextModelWithProjection" : "CLIPTextModel")
        components["text_encoder" + suffix] = .init(configuration, text)
        let tokenizer = DerivedConfiguration.tokenizer(length: configuration.max_position_embeddings, isOpenCLIP: isOpenCLIP)
        components["tokenizer" + suffix] = .init(className: "CLIPTokenizer", configuration: tokenizer.json, table: nil)
      }
      let owners = file.names.reduce(into: [:]) { owners, name in owners[name] = Self.component(of: name) }
      let leftOver = file.names.filter { owners[$0] == nil && !DerivedConfiguration.isBookkeeping($0) }
      return Checkpoint(
        file: file,
        className: StableDiffusionCheckpoint.className(unet, family: isRefiner ? "StableDiffusionXLImg2Img" : "StableDiffusionXL"),
        components: components, owners: owners, leftOver: Array(leftOver),
        flags: ["requires_aesthetics_score": isRefiner, "force_zeros_for_empty_prompt": !isRefiner])
    } catch {
      throw ModelFilesError.notAModel(path: file.url.path(percentEncoded: false), reason: "its \(error.component) lacks \(error.what)")
    }
  }

  /// The component that a tensor of such a file belongs to; nil for what belongs to none.
  private static func component(of name: String) -> String? {
    if name.hasPrefix(StableDiffusionCheckpoint.unetPrefix) { return "unet" }
    if name.hasPrefix(clipPrefix) { return "text_encoder" }
    // The scale of logits is a part of CLIP's training.
    if openCLIPPrefixes.contains(where: { name.hasPrefix($0) }) { return "text_encoder_2" }
    return StableDiffusionCheckpoint.autoencoderPrefixes.contains { name.hasPrefix($0) } ? "vae" : nil
  }
}
