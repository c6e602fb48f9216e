import Foundation

/// A file or folder that was given as a model but is something else: what it is, and what the user can do about it.
public struct ForeignFile: Sendable, Equatable {
  /// The kind of file or folder, with an article: "a Git LFS pointer".
  public let kind: String
  /// The advice to the user, as the end of a sentence.
  public let advice: String

  package init(_ kind: String, _ advice: String) { (self.kind, self.advice) = (kind, advice) }

  /// The sentence for an error about a path.
  func described(at path: String) -> String { "\(path) is \(kind); \(advice)." }
}

// MARK: by its first bytes

extension ForeignFile {
  /// How many bytes at the beginning identify a file.
  static let signatureBytes = 512

  /// - Parameter beginning: the first bytes of a file that is not a safetensors file.
  init?(beginning: Data) {
    let bytes = Array(beginning.prefix(Self.signatureBytes))
    func has(_ signature: [UInt8]) -> Bool { bytes.starts(with: signature) }
    func has(_ text: String) -> Bool { has(Array(text.utf8)) }
    let text = String(decoding: bytes, as: UTF8.self).drop { $0.isWhitespace || $0 == "\u{FEFF}" }.lowercased()
    if has("version https://git-lfs") {
      self.init("a Git LFS pointer, not the file itself", "fetch the file with git lfs pull, or download it again")
    } else if ["<!doctype html", "<html", "<head", "<?xml"].contains(where: text.hasPrefix) {
      self.init("a web page, not a model", "download the file itself; a login or a licence may have to be accepted first")
    } else if PyTorchFile.isPickle(bytes) {
      self.init("a file of PyTorch", "a safetensors file is needed here")
    } else if has("PK\u{3}\u{4}") || has([0x1F, 0x8B]) || has("7z") || has("Rar!") {
      self.init("an archive", "unpack it and give what is in it")
    } else if has([0x89, 0x48, 0x44, 0x46]) {
      self.init("an HDF5 file (Keras)", "get the model as .safetensors")
    } else if has([0x89, 0x50, 0x4E, 0x47]) || has([0xFF, 0xD8, 0xFF]) {
      self.init("a picture", "give the folder of a model or a .safetensors file")
    } else if text.hasPrefix("{") || text.hasPrefix("[") {
      self.init("a JSON text, not weights", "give the folder that has model_index.json, or a .safetensors file")
    } else {
      return nil
    }
  }
}

// MARK: by its extension

extension ForeignFile {
  /// Identifies formats whose first bytes do not.
  init?(extension name: String) {
    let kinds = [
      "onnx": "an ONNX file", "msgpack": "a Flax (JAX) file", "tflite": "a TensorFlow Lite file", "mlmodel": "a Core ML file",
      "engine": "a TensorRT engine", "trt": "a TensorRT engine", "pb": "a TensorFlow file",
    ]
    guard let kind = kinds[name.lowercased()] else { return nil }
    self.init(kind, "get the model in diffusers' layout, or as .safetensors")
  }
}

// MARK: by its tensors' names

extension ForeignFile {
  /// Identifies a file of tensors that is neither a model nor a part of one.
  /// - Parameter names: the names of all tensors.
  init?(adapter names: Set<String>) {
    func has(_ parts: String...) -> Bool { names.contains { name in parts.contains { name.contains($0) } } }
    func begins(_ prefixes: String...) -> Bool { names.contains { name in prefixes.contains { name.hasPrefix($0) } } }
    let isModel = begins("model.diffusion_model.")
    if !names.isEmpty, names.allSatisfy({ $0.hasPrefix("state_dict.") }) {
      self.init("a training checkpoint, whose tensors' names all begin with state_dict.", "write its tensors without this prefix")
    } else if !isModel, has("lora", "hada_w1", "lokr_w1", ".oft_", "oft_blocks", "oft_diag", "dora_scale") {
      self.init("a LoRA: changes to a model, not a model", "give the model that it was made for, and this file as its adapter")
    } else if !isModel, has("motion_modules.") {
      self.init("a part of AnimateDiff other than its motion modules", "give the model that it was made for, and its motion modules")
    } else if begins("image_proj.", "ip_adapter.") {
      self.init("an IP-Adapter, not a model", "give the model that it was made for, and this file as its IP-Adapter")
    } else if !names.isEmpty,
      names.isSubset(of: ["emb_params", "clip_l", "clip_g"]) || names.allSatisfy({ $0.hasPrefix("<") && $0.hasSuffix(">") })
        || begins("string_to_param.")
    {
      self.init("an embedding (textual inversion), not a model", "give the model that it was made for, and this file as its embedding")
    } else {
      return nil
    }
  }

  /// Identifies a file of tensors that is not a whole model in the original code's layout.
  /// - Parameter names: the names of all tensors.
  init?(names: Set<String>) {
    func has(_ parts: String...) -> Bool { names.contains { name in parts.contains { name.contains($0) } } }
    func begins(_ prefixes: String...) -> Bool { names.contains { name in prefixes.contains { name.hasPrefix($0) } } }
    if let adapter = ForeignFile(adapter: names) {
      self = adapter
    } else if !begins("model.diffusion_model."), has("time_stack.", "time_mixer.mix_factor") {
      self.init("a part of Stable Video Diffusion alone, not a whole model", "give the whole model, a folder or a file")
    } else if has("joint_blocks.") {
      self.init("a Stable Diffusion 3 model", Self.notYetAdvice)
    } else if has("double_blocks.", "single_transformer_blocks.") {
      self.init("a Flux model", Self.notYetAdvice)
    } else if begins("effnet_mapper", "clip_mapper", "clip_txt_mapper", "clf.") {
      self.init("a Stable Cascade model", Self.notYetAdvice)
    } else if names.isSuperset(of: ["0.weight", "1.conv.0.weight"])
      || begins("taesd_encoder.", "taesd_decoder.", "encoder.layers.0.weight", "decoder.layers.0.weight", "decoder.layers.1.weight")
    {
      self.init("a tiny autoencoder (TAESD), not a model", "give a whole model, and this file in the place of its vae")
    } else if !begins("model.diffusion_model."), let component = Self.component(names) {
      self.init(
        "\(component) alone, not a whole model",
        "give the folder that has model_index.json, with this file in its place in it, or a model and this file for its part")
    } else {
      return nil
    }
  }

  /// Whether these are tensors of a ControlNet, in any layout.
  package static func isControlNet(_ names: Set<String>) -> Bool {
    names.contains { name in
      ["control_model.", "controlnet_cond_embedding.", "input_hint_block.", "zero_convs."].contains { name.hasPrefix($0) }
    }
  }

  /// Whether these are tensors of a T2I-Adapter, in any layout.
  package static func isT2IAdapter(_ names: Set<String>) -> Bool {
    names.contains { name in ["adapter.body.", "body.0."].contains { name.hasPrefix($0) } }
  }

  /// Whether these are motion modules alone, under diffusers' names or the original code's.
  package static func isMotionModule(_ names: Set<String>) -> Bool {
    let ends = ["motion_modules.0.temporal_transformer.proj_in.weight", "motion_modules.0.proj_in.weight"]
    return names.contains { name in ends.contains { name.hasSuffix($0) } }
      && !names.contains { $0.contains("time_embedding.") || $0.contains("controlnet_cond_embedding.") || $0.contains(".resnets.") }
  }

  private static let notYetAdvice = "this family is not supported yet; give a Stable Diffusion 1.x, 2.x or XL"

  /// The component that a file holds under the names of diffusers, transformers or the original code.
  private static func component(_ names: Set<String>) -> String? {
    func begins(_ prefixes: String...) -> Bool { names.contains { name in prefixes.contains { name.hasPrefix($0) } } }
    if begins("first_stage_model.", "cond_stage_model.") { return nil }
    if begins("encoder.down_blocks.", "decoder.up_blocks.", "encoder.down.", "decoder.up.") { return "an autoencoder" }
    if begins("down_blocks.", "input_blocks.") { return "a U-Net" }
    if begins("text_model.", "encoder.layers.0.self_attn", "transformer.resblocks.") { return "a text encoder" }
    if begins("vision_model.", "visual.") { return "a vision encoder" }
    if begins("transformer_blocks.", "blocks.") { return "a denoising transformer" }
    return nil
  }
}

// MARK: by the files of a folder

extension ForeignFile {
  /// Identifies a folder in which the expected weights or the expected index are missing.
  /// - Parameter names: the names of the files and folders in it.
  init?(files names: [String]) {
    func ends(_ endings: String...) -> Bool { names.contains { name in endings.contains { name.lowercased().hasSuffix($0) } } }
    if ends("openvino_model.xml", "openvino_model.bin") {
      self.init("a folder for OpenVINO", "get the model in diffusers' layout with .safetensors files")
    } else if ends(".onnx") {
      self.init("a folder for ONNX", "get the model in diffusers' layout with .safetensors files")
    } else if ends(".msgpack") {
      self.init("a folder for Flax (JAX)", "get the model in diffusers' layout with .safetensors files")
    } else if ends(".mlmodelc", ".mlpackage") {
      self.init("a folder for Core ML", "get the model in diffusers' layout with .safetensors files")
    } else if ends(".gguf") {
      self.init("a folder with GGUF files", "if one of them is a whole model, give that file")
    } else {
      return nil
    }
  }
}
