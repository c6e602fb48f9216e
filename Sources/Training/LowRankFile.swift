import Foundation
import LatentDiffusionFiles
import LatentDiffusionWeights
import Tensor

extension TrainedLowRank {
  /// The names in a file of low-rank changes.
  public enum Keys: String, Sendable, CaseIterable {
    /// `unet.….to_q.lora_A.weight`, with alpha in the header, as diffusers' `save_lora_weights` writes it.
    case diffusers
    /// `lora_unet_…_to_q.lora_down.weight`, with a tensor `alpha` beside, as kohya's scripts write it, which most other tools read.
    case kohya

    /// A component as these names begin with it.
    fileprivate func prefix(of component: String) -> String {
      switch (self, component) {
      case (.diffusers, _): component + "."
      case (.kohya, "text_encoder"): "lora_te_"
      case (.kohya, "text_encoder_2"): "lora_te2_"
      case (.kohya, _): "lora_\(component)_"
      }
    }
  }

  /// The changes as tensors of a file.
  /// - Parameter component: the folder of the model that they belong to.
  public func tensors(_ keys: Keys = .diffusers, of component: String = "unet") -> [String: Tensor] {
    var tensors: [String: Tensor] = [:]
    for (index, layer) in layers.enumerated() {
      let (down, up) = (values[2 * index], values[2 * index + 1]), prefix = keys.prefix(of: component)
      switch keys {
      case .diffusers:
        tensors["\(prefix)\(layer).lora_A.weight"] = down
        tensors["\(prefix)\(layer).lora_B.weight"] = up
      case .kohya:
        let name = prefix + layer.replacing(".", with: "_")
        tensors["\(name).lora_down.weight"] = down
        tensors["\(name).lora_up.weight"] = up
        tensors["\(name).alpha"] = Tensor([alpha], shape: Shape([]))
      }
    }
    return tensors
  }

  /// The header's text for these names.
  public func metadata(_ keys: Keys = .diffusers, of component: String = "unet") -> [String: String] {
    switch keys {
    case .kohya: return ["ss_network_dim": "\(rank)", "ss_network_alpha": "\(alpha)", "ss_network_module": "networks.lora"]
    case .diffusers:
      let settings: [(String, String)] = [
        ("lora_alpha", alpha == alpha.rounded() && abs(alpha) < 1e6 ? "\(Int(alpha))" : "\(alpha)"), ("r", "\(rank)"),
        ("target_modules", "[" + layers.map { "\"\($0)\"" }.joined(separator: ", ") + "]"),
      ]
      let text = settings.map { "\"\(component).\($0.0)\": \($0.1)" }.joined(separator: ", ")
      return ["format": "pt", "lora_adapter_metadata": "{\(text)}"]
    }
  }

  /// Writes the changes as one safetensors file, whole or not at all.
  /// - Throws: `FileWriteError`; an existing file is then unchanged.
  public func write(to url: URL, keys: Keys = .diffusers, of component: String = "unet") throws(FileWriteError) {
    try SafetensorsWriter.write(tensors(keys, of: component), metadata: metadata(keys, of: component), to: url)
  }
}
