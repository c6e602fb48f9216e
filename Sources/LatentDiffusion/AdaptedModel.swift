import Foundation
import LatentDiffusionWeights
import Tensor
import TextEncoder

extension ModelFamily {
  /// The modules of a model that adapters can change: those of its predictor and its text encoders.
  func adapterTargets(_ files: ModelFiles) throws -> AdapterTargets {
    let adaptable = parts.filter { [.predictor, .conditioner].contains($0.role) && files.components.contains($0.name) }
    // What is added to a predictor, such as motion modules, is a part of it to adapters.
    let predictor = adaptable.first { $0.role == .predictor }?.name
    return AdapterTargets(
      try adaptable.map { part in
        let shapes = try files.shapes(of: part.name)
        return AdapterTargets.Component(
          part.name, addedTo: part.role == .predictor && part.name != predictor ? predictor : nil, shapes: shapes,
          otherNames: otherNames(of: part.name, parameters: Set(shapes.keys)))
      })
  }
}

/// A loaded model's files, with what is needed to change its parameters while it is loaded.
package struct AdaptableFiles: Sendable {
  package let files: ModelFiles
  /// What was merged at loading.
  let merged: AdapterMatch
  /// What is added in every generation, since the parameters are streamed.
  let added: AdapterMatch
  /// What became of the adapters that were given at loading.
  let reports: [AdapterReport]
  /// In which each component is held.
  let forms: [String: WeightForm?]
}

extension DiffusionModel {
  /// What adapters change of this model, for `GenerationRequest.adaptation`: nothing is loaded again, other requests are drawn as before, and so is the
  /// same request without it, bit by bit.
  ///
  /// Changes of low rank are added to what a layer computes, in float32. Others (LoHa, LoKr, DoRA, (IA)³, full differences) take the place of the
  /// parameters, and need the memory of those.
  ///
  /// - Parameter adapters: applied together, on top of those that were merged at loading.
  /// - Returns: the adaptation, and what became of each adapter.
  /// - Throws: `AdapterError`, `WeightError`, `CancellationError`, and what reading the model's files throws.
  public func adaptation(
    by adapters: [AdapterUse], in context: ExecutionContext = ExecutionContext()
  ) throws -> (adaptation: Adaptation, reports: [AdapterReport]) {
    let match = try AdapterMatch(adapters, targets: family.adapterTargets(source.files))
    return (try adaptation(by: source.added.joined(with: match), in: context), match.reports)
  }

  func adaptation(by match: AdapterMatch, in context: ExecutionContext) throws -> Adaptation {
    var adaptation = Adaptation(of: identity)
    for component in match.components {
      let labels = reports[component]?.parameters ?? []
      let base = try source.files.weights(
        of: component, as: source.forms[component] ?? nil, adaptedBy: source.merged.joined(with: match.dense(in: component)), in: context)
      try adaptation.add(match.changes(of: component), to: labels, from: base, in: context)
    }
    return adaptation
  }
}

extension TextualInversion {
  /// Adds the word to the text encoders and tokenizers among a model's parts.
  /// - Returns: a warning where a text encoder does not learn the word.
  /// - Throws: `TextualInversionError`, `TokenizerError`.
  func extend(_ parts: inout [String: any Sendable]) throws -> LoadWarning? {
    let tokenizers = ["text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"]
    var encoders: [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)] = [:]
    for (name, tokenizer) in tokenizers {
      guard let model = parts[name] as? CLIPTextModel, let tokenizer = parts[tokenizer] as? CLIPTokenizer else { continue }
      encoders[name] = (model, tokenizer)
    }
    let others = try extend(&encoders)
    for (name, encoder) in encoders { (parts[name], parts[tokenizers[name] ?? ""]) = (encoder.model, encoder.tokenizer) }
    return others.isEmpty ? nil : .unlearned(word: name, path: place, encoders: others)
  }
}
