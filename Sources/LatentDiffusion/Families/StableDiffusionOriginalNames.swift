extension LDMKeys {
  /// The names that the original code has for a U-Net's modules, with diffusers' names: what `unet` does, the other way round, for adapters, which have too few
  /// tensors to tell a network's levels from.
  ///
  /// - Parameters:
  ///   - names: of the parameters in diffusers.
  ///   - labels: what the two layers of `label_emb` are in diffusers, where it has two.
  static func originalModules(ofUNet names: Set<String>, labels: String = "class_embedding") -> [String: String] {
    let modules = Set(names.compactMap { name in name.lastIndex(of: ".").map { String(name[..<$0]) } })
    let places = originalPlaces(names)
    let resnetNames = Dictionary(resnet.map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    let around = Dictionary(aroundBlocks.map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    var result = ["label_emb.0.0": labels + ".linear_1", "label_emb.0.2": labels + ".linear_2"].filter { modules.contains($0.value) }
    for module in modules {
      if let name = around[module] { result[name] = module }
      let parts = module.split(separator: ".").map(String.init)
      for depth in [1, 5, 4, 3] where parts.count >= depth {
        guard let place = places[parts.prefix(depth).joined(separator: ".")] else { continue }
        let inside = parts.dropFirst(depth).joined(separator: ".")
        let name = place.isResnet ? resnetNames[inside] ?? inside : inside
        result[[place.name, name].filter { !$0.isEmpty }.joined(separator: ".")] = module
      }
    }
    return result
  }

  /// Where each of diffusers' blocks is in the original, which counts the blocks of all levels in one list.
  private static func originalPlaces(_ names: Set<String>) -> [String: (name: String, isResnet: Bool)] {
    let tensors = names.map { $0 + "." }
    func has(_ prefix: String) -> Bool { tensors.contains { $0.hasPrefix(prefix + ".") } }
    var places: [String: (name: String, isResnet: Bool)] = ["conv_in": ("input_blocks.0.0", false)]
    func place(_ block: String, _ resnet: Int, at name: String) {
      places["\(block).resnets.\(resnet)"] = (name + ".0", true)
      places["\(block).attentions.\(resnet)"] = (name + ".1", false)
    }
    var index = 1
    for block in (0...).lazy.map({ "down_blocks.\($0)" }).prefix(while: has) {
      for resnet in (0...).lazy.prefix(while: { has("\(block).resnets.\($0)") }) {
        place(block, resnet, at: "input_blocks.\(index)")
        index += 1
      }
      guard has("\(block).downsamplers.0.conv") else { continue }
      places["\(block).downsamplers.0.conv"] = ("input_blocks.\(index).0.op", false)
      index += 1
    }
    for number in (0...).lazy.prefix(while: { has("mid_block.resnets.\($0)") }) {
      places["mid_block.resnets.\(number)"] = ("middle_block.\(2 * number)", true)
      places["mid_block.attentions.\(number)"] = ("middle_block.\(2 * number + 1)", false)
    }
    index = 0
    for block in (0...).lazy.map({ "up_blocks.\($0)" }).prefix(while: has) {
      for resnet in (0...).lazy.prefix(while: { has("\(block).resnets.\($0)") }) {
        place(block, resnet, at: "output_blocks.\(index)")
        index += 1
      }
      let module = has("\(block).attentions.0") ? 2 : 1
      places["\(block).upsamplers.0.conv"] = ("output_blocks.\(index - 1).\(module).conv", false)
    }
    return places
  }
}
