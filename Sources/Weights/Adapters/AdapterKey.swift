/// What a tensor of an adapter's file is to its module.
enum AdapterRole: String, Sendable, Hashable {
  // LoRA and LoCon: B, A, the kernel between them, and what is added to the bias.
  case up = "lora_up"
  case down = "lora_down"
  case mid = "lora_mid"
  case upBias = "lora_B.bias"
  case alpha
  /// DoRA's lengths, under the name that kohya's and LyCORIS' files have, and under PEFT's.
  case doraScale = "dora_scale"
  case magnitude = "lora_magnitude_vector"
  /// Full differences of a weight and a bias.
  case diff
  case diffBias = "diff_b"
  // LoHa.
  case hadaW1A = "hada_w1_a"
  case hadaW1B = "hada_w1_b"
  case hadaT1 = "hada_t1"
  case hadaW2A = "hada_w2_a"
  case hadaW2B = "hada_w2_b"
  case hadaT2 = "hada_t2"
  // LoKr.
  case lokrW1 = "lokr_w1"
  case lokrW1A = "lokr_w1_a"
  case lokrW1B = "lokr_w1_b"
  case lokrW2 = "lokr_w2"
  case lokrW2A = "lokr_w2_a"
  case lokrW2B = "lokr_w2_b"
  case lokrT2 = "lokr_t2"
  /// (IA)³: PEFT's factors; LyCORIS' factors less one, and whether they belong to the inputs.
  case ia3 = "ia3_l"
  case gain
  case onInput = "on_input"
}

/// The name of a tensor in an adapter's file, cut into the module that it belongs to and its role there.
struct AdapterKey {
  /// As the file writes it, with its prefix.
  let module: String
  let role: AdapterRole

  private static let names: [String: AdapterRole] = [
    "lora_A": .down, "lora_B": .up, "w_norm": .diff, "b_norm": .diffBias,
  ]
  /// Modules whose two matrices are called `up` and `down` (diffusers before PEFT).
  private static let holders: Set<String> = ["lora", "lora_linear_layer"]
  /// Roles that are not followed by `weight`.
  private static let bare: Set<AdapterRole> = [.alpha, .onInput, .diff, .diffBias]

  init?(_ key: String) {
    let parts = key.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    for index in parts.indices.reversed() where index > 0 {
      let tail = parts[(index + 1)...].joined(separator: ".")
      if let role = Self.names[parts[index]] ?? AdapterRole(rawValue: parts[index]), let role = Self.role(role, tail: tail) {
        (module, self.role) = (parts[..<index].joined(separator: "."), role)
        return
      }
      guard ["up.weight", "down.weight"].contains(tail), let module = Self.module(parts[...index]) else { continue }
      (self.module, role) = (module, tail == "up.weight" ? .up : .down)
      return
    }
    guard parts.count > 1, parts.last == "weight" else { return nil }
    (module, role) = (parts.dropLast().joined(separator: "."), .gain)
  }

  /// The role of a word that is followed by `tail`: nothing, `weight`, or the name of PEFT's adapter before that.
  private static func role(_ role: AdapterRole, tail: String) -> AdapterRole? {
    let words = tail.split(separator: ".").map(String.init)
    if bare.contains(role) { return words.isEmpty ? role : nil }
    guard words.count <= 2, words.count < 2 || ["weight", "bias"].contains(words[1]) else { return nil }
    return words.last == "bias" ? (role == .up ? .upBias : nil) : role
  }

  /// `….to_q_lora` and `….proj_in.lora` as names of modules.
  private static func module(_ parts: ArraySlice<String>) -> String? {
    guard let last = parts.last else { return nil }
    if holders.contains(last) { return parts.dropLast().joined(separator: ".") }
    guard last.hasSuffix("_lora") else { return nil }
    let layer = String(last.dropLast("_lora".count)), before = parts.dropLast().filter { $0 != "processor" }
    let isText = before.last == "self_attn"
    let names = ["to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"]
    return (before + [isText ? names[layer] ?? layer : layer == "to_out" ? "to_out.0" : layer]).joined(separator: ".")
  }
}
