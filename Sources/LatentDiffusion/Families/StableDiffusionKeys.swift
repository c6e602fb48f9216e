import LatentDiffusionWeights
import Tensor

/// diffusers' names for the tensors of the original latent diffusion code. The number of levels and of blocks in them follows from the keys.
///
/// A key that has no counterpart keeps its name, so that a load report shows it as unused.
enum LDMKeys {
  typealias Tensors = [String: StoredTensor]

  // MARK: U-Net

  static let resnet = [
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2", "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
  ]

  static let aroundBlocks = [
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "time_embed.cond_proj": "time_embedding.cond_proj",
    "label_emb": "class_embedding", "out.0": "conv_norm_out", "out.2": "conv_out",
  ]

  /// `UNetModel` → `UNet2DConditionModel`.
  ///
  /// - Parameter labels: what the two layers of `label_emb` are in diffusers, where it has two.
  static func unet(_ tensors: Tensors, labels: String = "class_embedding") -> Tensors {
    let modules = unetModules(Set(tensors.keys))
    return tensors.renamed { key in
      let (module, parameter) = key.cutAtLast()
      if let name = aroundBlocks[module] { return name + "." + parameter }
      if let layer = ["label_emb.0.0": "linear_1", "label_emb.0.2": "linear_2"][module] { return "\(labels).\(layer).\(parameter)" }
      let parts = module.split(separator: ".").map(String.init)
      // A block's number and its module's stand before what is inside the module; a resampling convolution has a word more.
      for depth in [4, 3, 2] where parts.count >= depth {
        guard let place = modules[parts.prefix(depth).joined(separator: ".")] else { continue }
        let inside = parts.dropFirst(depth).joined(separator: ".")
        let name = place.contains(".resnets.") ? resnet[inside] ?? inside : inside
        return [place, name, parameter].filter { !$0.isEmpty }.joined(separator: ".")
      }
      return nil
    }
  }

  /// Where each of the numbered modules is in diffusers.
  ///
  /// The original counts the blocks of all levels in one list; a level ends with the block that resamples.
  private static func unetModules(_ keys: Set<String>) -> [String: String] {
    let prefixes = Set(keys.flatMap(\.prefixes))
    var modules = ["input_blocks.0.0": "conv_in"]
    var (level, resnet) = (0, 0)
    for block in (1...).lazy.map({ "input_blocks.\($0)" }).prefix(while: { prefixes.contains($0) }) {
      if prefixes.contains(block + ".0.op") {
        modules[block + ".0.op"] = "down_blocks.\(level).downsamplers.0.conv"
        (level, resnet) = (level + 1, 0)
      } else {
        modules[block + ".0"] = "down_blocks.\(level).resnets.\(resnet)"
        modules[block + ".1"] = "down_blocks.\(level).attentions.\(resnet)"
        resnet += 1
      }
    }
    for index in (0...).lazy.prefix(while: { prefixes.contains("middle_block.\($0)") }) {
      modules["middle_block.\(index)"] = index % 2 == 0 ? "mid_block.resnets.\(index / 2)" : "mid_block.attentions.\(index / 2)"
    }
    (level, resnet) = (0, 0)
    for block in (0...).lazy.map({ "output_blocks.\($0)" }).prefix(while: { prefixes.contains($0) }) {
      modules[block + ".0"] = "up_blocks.\(level).resnets.\(resnet)"
      modules[block + ".1"] = "up_blocks.\(level).attentions.\(resnet)"
      resnet += 1
      for module in [block + ".1.conv", block + ".2.conv"] where prefixes.contains(module) {
        modules[module] = "up_blocks.\(level).upsamplers.0.conv"
        (level, resnet) = (level + 1, 0)
      }
    }
    return modules
  }

  // MARK: autoencoder

  /// What the original calls the parts of its attention, and diffusers' old and new names, under which converters wrote them.
  private static let autoencoderAttention = [
    "norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0",
    "group_norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0",
    "to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out.0",
  ]

  /// `AutoencoderKL` and `VQModel` of the original → those of diffusers, whose decoder counts its levels from the other end.
  static func autoencoder(_ tensors: Tensors) -> Tensors {
    let levels = tensors.count(of: "decoder.up.")
    return tensors.filter { !$0.key.hasPrefix("loss.") }.renamed { key in
      let (module, parameter) = key.cutAtLast()
      var parts = module.split(separator: ".").map(String.init)
      guard parts.count >= 2 else { return nil }
      let half = parts.removeFirst()
      guard let inside = autoencoderModule(parts, levels: levels) else { return nil }
      return "\(half).\(inside).\(parameter)"
    }
  }

  /// A module inside of the encoder or decoder.
  private static func autoencoderModule(_ parts: [String], levels: Int) -> String? {
    let last = parts[parts.count - 1] == "nin_shortcut" ? "conv_shortcut" : parts[parts.count - 1]
    switch (parts[0], parts.count) {
    case ("norm_out", 1): return "conv_norm_out"
    case ("mid", 3...) where parts[1] == "attn_1":
      return "mid_block.attentions.0." + attentionPart(parts.dropFirst(2))
    case ("mid", 3) where parts[1] == "block_1": return "mid_block.resnets.0." + last
    case ("mid", 3) where parts[1] == "block_2": return "mid_block.resnets.1." + last
    case ("down", 5...) where parts[2] == "attn":
      return "down_blocks.\(parts[1]).attentions.\(parts[3])." + attentionPart(parts.dropFirst(4))
    case ("down", 5) where parts[2] == "block": return "down_blocks.\(parts[1]).resnets.\(parts[3]).\(last)"
    case ("down", 4) where parts[2] == "downsample": return "down_blocks.\(parts[1]).downsamplers.0.\(last)"
    case ("up", 4...):
      guard let level = Int(parts[1]), (0..<levels).contains(level) else { return nil }
      if parts[2] == "attn", parts.count > 4 {
        return "up_blocks.\(levels - 1 - level).attentions.\(parts[3])." + attentionPart(parts.dropFirst(4))
      }
      if parts[2] == "upsample", parts.count == 4 { return "up_blocks.\(levels - 1 - level).upsamplers.0.\(last)" }
      return parts.count == 5 && parts[2] == "block" ? "up_blocks.\(levels - 1 - level).resnets.\(parts[3]).\(last)" : nil
    default: return nil
    }
  }

  /// A part that nobody knows keeps its name and the attention's place, so that it is missed or told, and the attention not taken for absent.
  private static func attentionPart(_ parts: ArraySlice<String>) -> String {
    let part = parts.joined(separator: ".")
    return autoencoderAttention[part] ?? part
  }

  // MARK: text encoders

  /// CLIP as transformers wrote it inside of checkpoints; version 2 under these names may have the text tower's projection, which nobody asks for.
  ///
  /// - Parameter layers: that are kept; nil: all.
  static func clip(_ tensors: Tensors, layers: Int? = nil) -> Tensors {
    WeightTable(tensors).renamed(KeyNames.textEncoder).tensors.filter { key, _ in
      guard let layers else { return true }
      if key == "text_projection.weight" || key == "logit_scale" { return false }
      let parts = key.split(separator: ".")
      guard parts.count > 2, parts[0] == "encoder", parts[1] == "layers", let layer = Int(parts[2]) else { return true }
      return layer < layers
    }
  }

  /// The layers of version 2's text encoder that are used: it takes the state before the last one. A file that was converted back from diffusers
  /// has neither that layer nor `text_projection`.
  static func version2Layers(_ tensors: Tensors) -> Int {
    let layers = max(
      tensors.count(of: "transformer.resblocks."), tensors.count(of: "text_model.encoder.layers."), tensors.count(of: "encoder.layers."))
    let isOriginal = tensors["text_projection"] != nil || tensors["text_projection.weight"] != nil || layers == 24
    return isOriginal && layers > 1 ? layers - 1 : layers
  }

  private static let openCLIPModules = [
    "token_embedding.weight": "embeddings.token_embedding.weight", "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight", "ln_final.bias": "final_layer_norm.bias",
    // Of the image tower.
    "class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight", "ln_pre.bias": "pre_layrnorm.bias", "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
  ]

  private static let openCLIPLayer = [
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
  ]

  /// OpenCLIP's towers → `CLIPTextModel`, `CLIPVisionModelWithProjection`: one matrix for queries, keys and values becomes three.
  ///
  /// - Parameters:
  ///   - layers: that are kept; those beyond are left out. Nil: all.
  ///   - projects: whether the projection is kept, which the original multiplies from the other side.
  static func openCLIP(_ tensors: Tensors, layers: Int? = nil, projects: Bool = false) -> Tensors {
    var result: Tensors = [:]
    for (key, tensor) in tensors {
      if projects, key == "text_projection" || key == "text_projection.weight" {
        result["text_projection.weight"] = key == "text_projection" ? tensor.transposed() ?? tensor : tensor
        continue
      }
      if ["text_projection", "text_projection.weight", "logit_scale", "attn_mask"].contains(key) { continue }
      let parts = key.split(separator: ".").map(String.init)
      if let name = openCLIPModules[key] {
        result[name] = tensor
      } else if parts.count >= 4, parts[0] == "transformer", parts[1] == "resblocks" {
        if let layers, let layer = Int(parts[2]), layer >= layers { continue }
        let layer = "encoder.layers.\(parts[2])."
        let (module, parameter) = parts.dropFirst(3).joined(separator: ".").cutAtLast()
        if let name = openCLIPLayer[module] {
          result["\(layer)\(name).\(parameter)"] = tensor
        } else if module == "attn", parameter.hasPrefix("in_proj_"), let three = tensor.split(3) {
          let kind = parameter.dropFirst("in_proj_".count)
          for (name, part) in zip(["q_proj", "k_proj", "v_proj"], three) { result["\(layer)self_attn.\(name).\(kind)"] = part }
        } else {
          result[key] = tensor
        }
      } else {
        result[key] = tensor
      }
    }
    return result
  }
}

extension [String: StoredTensor] {
  /// The same tensors under new names, those without one under their own.
  fileprivate func renamed(_ name: (String) -> String?) -> Self {
    WeightTable(self).renamed { name($0) ?? $0 }.tensors
  }

  /// How many numbers, from 0 up without a gap, follow a prefix in the names.
  func count(of prefix: String) -> Int {
    let numbers = Set(keys.lazy.filter { $0.hasPrefix(prefix) }.map { $0.dropFirst(prefix.count).prefix { $0 != "." } })
    return (0...).lazy.prefix { numbers.contains(Substring(String($0))) }.count
  }
}

extension String {
  /// What stands before the last dot, and after it.
  fileprivate func cutAtLast() -> (module: String, parameter: String) {
    guard let dot = lastIndex(of: ".") else { return ("", self) }
    return (String(self[..<dot]), String(self[index(after: dot)...]))
  }

  /// What stands before each of the first four dots.
  fileprivate var prefixes: [String] {
    indices.lazy.filter { self[$0] == "." }.prefix(4).map { String(self[..<$0]) }
  }
}

extension Shape {
  /// An extent, or nil where there is no such axis.
  func extent(_ axis: Int) -> Int? { axis < rank ? dimensions[axis] : nil }
}
