import Foundation

extension GenerationParameters {
  /// Reads what ComfyUI writes into a PNG's chunk `prompt`: the nodes of a workflow with their inputs. Of several samplers, the first one by number counts, as
  /// the one that others go on from. Nil where no node is a sampler.
  init?(comfyUI text: String) {
    guard let nodes = try? JSONDecoder().decode([String: ComfyNode].self, from: Data(text.utf8)) else { return nil }
    let samplers = nodes.filter {
      $0.value.inputs["positive"]?.link != nil && ["seed", "noise_seed"].contains(where: $0.value.inputs.keys.contains)
    }
    guard let sampler = samplers.min(by: { (Int($0.key) ?? .max, $0.key) < (Int($1.key) ?? .max, $1.key) })?.value else { return nil }
    let workflow = ComfyWorkflow(nodes: nodes)
    var settings: [Setting] = []
    func add(_ name: String, _ value: String?) { if let value { settings.append(Setting(name, value)) } }
    add("Steps", workflow.value("steps", of: sampler))
    add("Sampler", workflow.value("sampler_name", of: sampler))
    add("Schedule type", workflow.value("scheduler", of: sampler))
    add("CFG scale", workflow.value("cfg", of: sampler))
    add("Seed", workflow.value("seed", of: sampler) ?? workflow.value("noise_seed", of: sampler))
    if let latents = workflow.node(sampler.inputs["latent_image"]), let width = workflow.value("width", of: latents),
      let height = workflow.value("height", of: latents)
    {
      add("Size", "\(width)x\(height)")
    }
    let denoise = workflow.value("denoise", of: sampler)
    if denoise.flatMap(Double.init) != 1 { add("Denoising strength", denoise) }
    add("Model", workflow.found("ckpt_name", "unet_name", from: sampler.inputs["model"]))
    self.init(
      prompt: workflow.found("text", "text_g", from: sampler.inputs["positive"]) ?? "",
      negativePrompt: workflow.found("text", "text_g", from: sampler.inputs["negative"]) ?? "", settings: settings)
  }
}

/// A node of a workflow; what it is named and where it stands does not matter.
private struct ComfyNode: Decodable {
  let inputs: [String: Input]

  /// A value, or the output of another node.
  enum Input: Decodable {
    case text(String)
    case link(String)
    case other

    init(from decoder: any Decoder) throws {
      let value = try decoder.singleValueContainer()
      if let text = try? value.decode(String.self) {
        self = .text(text)
      } else if let whole = try? value.decode(UInt64.self) {
        self = .text("\(whole)")
      } else if let number = try? value.decode(Double.self) {
        self = .text("\(number)")
      } else if var parts = try? decoder.unkeyedContainer(), let node = try? parts.decode(String.self) {
        self = .link(node)
      } else {
        self = .other
      }
    }

    var link: String? { if case .link(let node) = self { node } else { nil } }
  }
}

private struct ComfyWorkflow {
  let nodes: [String: ComfyNode]
  /// A link that leads in a circle ends here.
  private static let longestWay = 50

  func node(_ input: ComfyNode.Input?) -> ComfyNode? { input?.link.flatMap { nodes[$0] } }

  /// An input that is a value, or comes from a node that holds one.
  func value(_ name: String, of node: ComfyNode) -> String? {
    var name = name, node = node
    for _ in 0..<Self.longestWay {
      switch node.inputs[name] {
      case .text(let text): return text
      case .link(let other):
        guard let next = nodes[other] else { return nil }
        if next.inputs[name] == nil { name = "value" }
        node = next
      default: return nil
      }
    }
    return nil
  }

  /// The nearest such input on the way up from a link, each node once.
  func found(_ names: String..., from input: ComfyNode.Input?) -> String? {
    var waiting = [input?.link].compactMap(\.self), seen = Set(waiting), next = 0
    while next < waiting.count {
      defer { next += 1 }
      guard let node = nodes[waiting[next]] else { continue }
      if let own = names.lazy.compactMap({ value($0, of: node) }).first { return own }
      for link in node.inputs.sorted(by: { $0.key < $1.key }).compactMap(\.value.link) where seen.insert(link).inserted {
        waiting.append(link)
      }
    }
    return nil
  }
}
