import Foundation
import LatentDiffusionComponents
import LatentDiffusionFiles
import Tensor

extension GenerationRequest {
  /// A hash for each part of what is asked for: where one differs between two requests, their pictures do. What has parts of its own to compare is left
  /// to them: size, seed and schedule.
  var contents: [String: ContentHash] {
    var result: [String: ContentHash] = [:]
    func tell(_ name: String, _ say: (inout ContentHash) -> Void) {
      var hash = ContentHash()
      say(&hash)
      result[name] = hash
    }
    tell("prompts") {
      $0.add("\(prompts)", "\(laterPrompts.map { "\($0)" })", "\(imagesPerPrompt)", "\(sizes)")
      $0.add(conditioning)
    }
    tell("negative prompts") {
      $0.add("\(negativePrompts)", "\(negativeSizes as Any)")
      $0.add(negativeConditioning)
    }
    tell("a task") {
      $0.add(task.name, "\(task.strength)", "\(denoisingStart as Any)", "\(denoisingEnd as Any)", "\(resizeMode)", "\(frameWindows as Any)")
    }
    tell("pictures") {
      for (name, tensor) in task.inputs {
        $0.add(name)
        $0.add(tensor)
      }
      for prompt in imagePrompts {
        $0.add("\(prompt.scale as Any)", "\(prompt.noiseLevel as Any)")
        for picture in prompt.pictures { $0.add(picture) }
      }
      for control in controls {
        $0.add(control.model.name, "\(control.weight)", "\(control.start)", "\(control.end)", "\(control.isGuessing)")
        $0.add(control.picture)
      }
      if let noise { $0.add(noise) }
    }
    tell("a guidance") {
      $0.add(
        "\(guidance)", "\(guidanceRescale)", "\(guidanceInterval as Any)", "\(perturbedAttention as Any)",
        "\(selfAttentionScale as Any)", "\(freeU as Any)", guidanceMethod.map(written) ?? "")
    }
    tell("noise settings") { $0.add("\(sampling)") }
    tell("short cuts") { $0.add("\(shortcuts)", "\(forecast as Any)") }
    return result
  }

  /// A kind of guidance as it encodes itself.
  private func written(_ guidance: any Guidance) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    return (try? encoder.encode(guidance)).map { String(decoding: $0, as: UTF8.self) } ?? "\(type(of: guidance))"
  }
}

extension ContentHash {
  fileprivate mutating func add(_ texts: String...) { for text in texts { add(text) } }

  /// Adds a shape and elements.
  package mutating func add(_ tensor: Tensor) {
    add("\(tensor.shape)")
    add(words: tensor.elements.lazy.map(\.bitPattern))
  }

  fileprivate mutating func add(_ conditioning: Conditioning?) {
    guard let conditioning else { return add("nothing") }
    for tensor in conditioning.contexts + [conditioning.pooled].compactMap(\.self) { add(tensor) }
    for (name, tensor) in conditioning.inputs.sorted(by: { $0.key < $1.key }) {
      add(name)
      add(tensor)
    }
  }
}
