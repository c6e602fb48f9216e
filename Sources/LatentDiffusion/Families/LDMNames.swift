import LatentDiffusionWeights
import Tensor

/// diffusers' names for what the first latent diffusion models have beside the parts of Stable Diffusion.
extension LDMKeys {
  // MARK: attention of pixels

  /// The original's `AttentionBlock`, in which queries, keys and values of a head stand together in one matrix, head after head → diffusers' `Attention`.
  ///
  /// - Parameters:
  ///   - tensors: whose modules have diffusers' names.
  ///   - headChannels: of each head; nil: all channels are one head.
  static func pixelAttention(_ tensors: Tensors, headChannels: Int?) -> Tensors {
    let joint = ".qkv.weight"
    let modules = Set(tensors.keys.lazy.filter { $0.hasSuffix(joint) }.map { String($0.dropLast(joint.count)) })
    var result: Tensors = [:]
    for (key, tensor) in tensors {
      guard let module = modules.first(where: { key.hasPrefix($0 + ".") }) else {
        result[key] = tensor
        continue
      }
      let rest = String(key.dropFirst(module.count + 1))
      if rest.hasPrefix("norm.") {
        result["\(module).group_\(rest)"] = tensor
      } else if rest.hasPrefix("proj_out.") {
        result["\(module).to_out.0.\(rest.dropFirst("proj_out.".count))"] = tensor.withoutLength() ?? tensor
      } else if rest.hasPrefix("qkv."), let parts = tensor.withoutLength()?.queriesKeysValues(headChannels) {
        for (name, part) in zip(["to_q", "to_k", "to_v"], parts) { result["\(module).\(name).\(rest.dropFirst("qkv.".count))"] = part }
      } else {
        result[key] = tensor
      }
    }
    return result
  }

  // MARK: the text encoder

  private static let bertModules = [
    "token_emb": "model.embed_tokens", "pos_emb.emb": "model.embed_positions", "norm": "model.layer_norm",
  ]
  /// In the original, attention and feed-forward net are layers of their own, which take turns.
  private static let bertLayers = [
    [
      "0": "self_attn_layer_norm", "1.to_q": "self_attn.q_proj", "1.to_k": "self_attn.k_proj", "1.to_v": "self_attn.v_proj",
      "1.to_out": "self_attn.out_proj",
    ],
    ["0": "final_layer_norm", "1.net.0.0": "fc1", "1.net.2": "fc2"],
  ]

  /// The original's `TransformerWrapper` → `LDMBertModel`. What turns states into words is left out.
  static func bert(_ tensors: Tensors) -> Tensors {
    WeightTable(tensors.filter { !$0.key.hasPrefix("to_logits.") }).renamed { key in
      guard let dot = key.lastIndex(of: ".") else { return key }
      let (module, parameter) = (String(key[..<dot]), key[dot...])
      if let name = bertModules[module] { return name + parameter }
      let prefix = "attn_layers.layers."
      guard module.hasPrefix(prefix) else { return key }
      let rest = module.dropFirst(prefix.count), number = rest.prefix { $0 != "." }
      guard let place = Int(number), place >= 0, let name = bertLayers[place % 2][String(rest.dropFirst(number.count + 1))] else {
        return key
      }
      return "model.layers.\(place / 2).\(name)\(parameter)"
    }.tensors
  }
}

extension StoredTensor {
  /// A kernel of length 1 as a matrix; a vector as it is.
  fileprivate func withoutLength() -> StoredTensor? {
    guard shape.rank > 2 else { return self }
    return shape.dimensions.dropFirst(2).allSatisfy { $0 == 1 } ? reshaped([shape[0], shape[1]]) : nil
  }

  /// The rows of all heads' queries, of their keys and of their values, out of rows that have these three for each head.
  fileprivate func queriesKeysValues(_ headChannels: Int?) -> [StoredTensor]? {
    guard let rows = shape.dimensions.first, rows > 0, rows.isMultiple(of: 3) else { return nil }
    let heads = headChannels.map { rows / 3 / $0 } ?? 1
    guard heads > 1 else { return split(3) }
    guard let parts = split(3 * heads) else { return nil }
    let kinds = (0..<3).map { kind in StoredTensor.joined(stride(from: kind, to: parts.count, by: 3).map { parts[$0] }) }
    return kinds.allSatisfy { $0 != nil } ? kinds.compactMap(\.self) : nil
  }
}

extension DerivedConfiguration {
  /// The keys of `UNet2DModel`'s configuration.
  struct UNet2D: DerivedComponent {
    static let guesses = ConfigurationGuesses(["sample_size"], ofWidth: ["norm_num_groups"], width: "block_out_channels")
    let _class_name = "UNet2DModel"
    let sample_size: Int
    let in_channels: Int
    let out_channels: Int
    let block_out_channels: [Int]
    let layers_per_block: Int
    let down_block_types: [String]
    let up_block_types: [String]
    let add_attention: Bool
    let attention_head_dim: Whole
    let norm_num_groups: Int
  }

  /// A number, or null where there is none: to leave the key out would mean diffusers' default.
  struct Whole: Encodable {
    let number: Int?

    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      if let number { try container.encode(number) } else { try container.encodeNil() }
    }
  }

  /// Channels of a head of pixels' attention, which no tensor tells: 32, as the published models have them, where that divides all widths; nil: all
  /// channels are one head.
  static func headChannels(_ tensors: Tensors) -> Int? {
    let usual = 32
    let rows = tensors.filter { $0.key.hasSuffix(".qkv.weight") }.compactMap { $0.value.shape.extent(0) }
    return rows.allSatisfy { ($0 / 3).isMultiple(of: usual) } ? usual : nil
  }

  /// - Parameter tensors: under diffusers' names.
  static func unet2D(_ tensors: Tensors, latentSide: Int, headChannels: Int?) throws(Missing) -> UNet2D {
    func extent(_ name: String, _ axis: Int) throws(Missing) -> Int { try tensors.extent(name, axis, of: "U-Net") }
    let levels = tensors.count(of: "down_blocks.")
    guard levelCounts.contains(levels) else { throw Missing(component: "U-Net", what: "its blocks") }
    var channels: [Int] = []
    for level in 0..<levels { channels.append(try extent("down_blocks.\(level).resnets.0.conv2.weight", 0)) }
    func kind(_ block: String) -> String { tensors.has(block + ".attentions.") ? "Attn" : "" }
    return UNet2D(
      sample_size: latentSide, in_channels: try extent("conv_in.weight", 1), out_channels: try extent("conv_out.weight", 0),
      block_out_channels: channels, layers_per_block: tensors.count(of: "down_blocks.0.resnets."),
      down_block_types: (0..<levels).map { kind("down_blocks.\($0)") + "DownBlock2D" },
      up_block_types: (0..<levels).map { kind("up_blocks.\($0)") + "UpBlock2D" }, add_attention: tensors.has("mid_block.attentions."),
      attention_head_dim: Whole(number: headChannels), norm_num_groups: groups(channels))
  }
}
