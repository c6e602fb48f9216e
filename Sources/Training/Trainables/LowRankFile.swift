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
    LowRankFile([(component, self)]).metadata(keys)
  }

  /// Writes the changes as one safetensors file, whole or not at all.
  /// - Throws: `FileWriteError`; an existing file is then unchanged.
  public func write(to url: URL, keys: Keys = .diffusers, of component: String = "unet") throws(FileWriteError) {
    try LowRankFile([(component, self)]).write(to: url, keys: keys)
  }
}

/// Low-rank changes of one or several components of a model, as one file holds them.
public struct LowRankFile: Sendable {
  /// Each with the folder of the model that it belongs to.
  public let parts: [(component: String, change: TrainedLowRank)]

  /// - Parameter parts: each with the folder of the model that it belongs to, which differ.
  public init(_ parts: [(component: String, change: TrainedLowRank)]) { self.parts = parts }

  /// Nil unless all that is trained are low-rank changes.
  public init?(_ trained: TrainedComponents) {
    let parts = trained.parts.compactMap { part in (part.trained as? TrainedLowRank).map { (component: part.component, change: $0) } }
    guard parts.count == trained.parts.count else { return nil }
    self.init(parts)
  }

  /// The header's text for these names. That of kohya's names is of the first component, since it has a place for one.
  public func metadata(_ keys: TrainedLowRank.Keys = .diffusers) -> [String: String] {
    switch keys {
    case .kohya:
      guard let change = parts.first?.change else { return [:] }
      return ["ss_network_dim": "\(change.rank)", "ss_network_alpha": "\(change.alpha)", "ss_network_module": "networks.lora"]
    case .diffusers:
      let settings = parts.flatMap { component, change in
        [
          ("lora_alpha", change.alpha == change.alpha.rounded() && abs(change.alpha) < 1e6 ? "\(Int(change.alpha))" : "\(change.alpha)"),
          ("r", "\(change.rank)"), ("target_modules", "[" + change.layers.map { "\"\($0)\"" }.joined(separator: ", ") + "]"),
        ].map { "\"\(component).\($0)\": \($1)" }
      }
      return ["format": "pt", "lora_adapter_metadata": "{\(settings.joined(separator: ", "))}"]
    }
  }

  /// Writes the changes as one safetensors file, whole or not at all.
  /// - Throws: `FileWriteError`; an existing file is then unchanged.
  public func write(to url: URL, keys: TrainedLowRank.Keys = .diffusers) throws(FileWriteError) {
    let tensors = parts.reduce(into: [String: Tensor]()) { $0.merge($1.change.tensors(keys, of: $1.component)) { $1 } }
    try SafetensorsWriter.write(tensors, metadata: metadata(keys), to: url)
  }
}
