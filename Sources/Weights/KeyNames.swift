import Tensor

/// Maps parameter names of older diffusers and transformers versions to the current names.
package enum KeyNames {
  /// The name that a layer asks for; nil if the tensor is not a parameter.
  static func current(_ name: String, className: String) -> String? {
    if className.hasPrefix("CLIPText") { return textEncoder(name) }
    if className.hasPrefix("CLIPVision") { return clip(name, tower: "vision_model.") }
    if className.hasPrefix("Autoencoder") || ["VQModel", "UNet2DModel"].contains(className) { return autoencoder(name) }
    // The layer with which the text encoder was trained, and which no picture needs.
    return className == "LDMBertModel" && name.hasPrefix("to_logits.") ? nil : name
  }

  /// CLIP's names in transformers 5. Version 4 adds the prefix `text_model.`, and its early releases store a table of the numbers 0, 1, 2, ….
  package static func textEncoder(_ name: String) -> String? { clip(name, tower: "text_model.") }

  /// The same of either tower.
  private static func clip(_ name: String, tower: String) -> String? {
    let name = name.hasPrefix(tower) ? String(name.dropFirst(tower.count)) : name
    return name == "embeddings.position_ids" ? nil : name
  }

  private static let autoencoderAttention = ["query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"]

  /// An autoencoder's attention, and that of `UNet2DModel`, before diffusers 0.14: `query`, `key`, `value`, `proj_attn`.
  package static func autoencoder(_ name: String) -> String {
    var parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard parts.count >= 4, parts[parts.count - 4] == "attentions", let new = autoencoderAttention[parts[parts.count - 2]] else {
      return name
    }
    parts[parts.count - 2] = new
    return parts.joined(separator: ".")
  }
}

extension WeightTable {
  /// The same tensors under new names. A nil name leaves a tensor out. If two tensors claim a name, the one that already has it keeps it.
  package func renamed(_ rename: (String) -> String?) -> WeightTable {
    var result: [String: StoredTensor] = [:]
    for (name, tensor) in tensors {
      guard let new = rename(name) else { continue }
      if new == name || tensors[new] == nil { result[new] = tensor.withoutKernelAxes(for: new) }
    }
    return WeightTable(result)
  }
}

extension StoredTensor {
  /// Old autoencoders store attention projections as 1×1 convolutions `[O, I, 1, 1]`. The same bytes are a matrix `[O, I]`.
  package func withoutKernelAxes(for name: String) -> StoredTensor {
    let isProjection = [".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight"].contains { name.hasSuffix($0) }
    guard isProjection, shape.rank > 2, shape.dimensions.dropFirst(2).allSatisfy({ $0 == 1 }) else { return self }
    return reshaped(Shape(Array(shape.dimensions.prefix(2)))) ?? self
  }
}
