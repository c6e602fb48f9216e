import Tensor

/// Adapters in a model: what they change, by component and parameter.
package struct AdapterMatch: Sendable {
  /// By component and by the parameter's name.
  let changes: [String: [String: [WeightChange]]]
  /// One for each adapter, in their order.
  package let reports: [AdapterReport]

  /// Nothing is changed.
  package static let none = AdapterMatch(changes: [:], reports: [])

  init(changes: [String: [String: [WeightChange]]], reports: [AdapterReport]) {
    (self.changes, self.reports) = (changes, reports)
  }

  /// Finds the parameters that adapters change, and compares all shapes.
  ///
  /// - Throws: `AdapterError`: if nothing of an adapter has a place in the model, if it names a module twice, if a tensor has another shape than its layer, or
  ///   holds values that are not finite.
  package init(_ uses: [AdapterUse], targets: AdapterTargets) throws(AdapterError) {
    var all: [String: [String: [WeightChange]]] = [:], reports: [AdapterReport] = []
    for use in uses {
      let adapter = use.adapter, weight = Float(use.weight)
      guard weight.isFinite else { throw .badWeight(path: adapter.path) }
      var (applied, unused) = (0, adapter.unknown), names: [AdapterTargets.Module: String] = [:]
      for source in adapter.modules {
        guard let module = targets.module(source.name) else {
          unused += source.tensors.values.map(\.key)
          continue
        }
        if let other = names.updateValue(source.name, forKey: module) {
          throw .twice(path: adapter.path, module: module.full, names: [other, source.name])
        }
        let found = try source.changes(of: module, in: targets, weight: weight, settings: adapter.settings)
        unused += found.unused
        if found.changes.values.contains(where: { !$0.isEmpty }) { applied += 1 }
        for (name, changes) in found.changes where !changes.isEmpty {
          all[module.component, default: [:]][module.name + "." + name, default: []] += changes
        }
      }
      guard applied > 0 else {
        throw .nothingApplied(
          path: adapter.path, count: adapter.modules.count, keys: Array(unused.sorted().prefix(3)), expected: targets.examples)
      }
      reports.append(AdapterReport(path: adapter.path, applied: applied, count: adapter.modules.count, unused: unused.sorted()))
    }
    self.init(changes: all, reports: reports)
  }

  /// Both, as if they had been given together.
  package func joined(with other: AdapterMatch) -> AdapterMatch {
    AdapterMatch(
      changes: changes.merging(other.changes) { $0.merging($1) { $0 + $1 } }, reports: reports + other.reports)
  }
}

/// A component's weights with adapters merged into them: W + ΔW in float32, then in the form in which weights are held.
struct AdaptedWeights: WeightSource {
  let source: any WeightSource
  let changes: [String: [WeightChange]]
  /// Nil: as the file has them.
  let form: WeightForm?
  let rule: QuantizationRule
  let context: ExecutionContext

  var names: Set<String> { source.names }
  func origin(of name: String) -> WeightOrigin { source.origin(of: name) }

  func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor {
    let stored = try source.tensor(name, shape: shape)
    guard let changes = changes[name] else { return try form?.convert(stored, name: name, rule: rule, in: context) ?? stored }
    let type = form?.elementType(of: stored.elementType, shape: shape, name: name, rule: rule) ?? stored.elementType.written(shape)
    return try merged(stored, changes).converted(to: type, name: name, in: context)
  }

  /// A cancelled merge gives the old weights: whoever packs them throws.
  private func merged(_ stored: WeightTensor, _ changes: [WeightChange]) -> WeightTensor {
    let old = stored.decoded()
    let differences = changes.map { try? $0.difference(from: old, in: context) }
    stored.releasePages()
    return WeightTensor(differences.compactMap(\.self).reduce(old, +))
  }
}

extension NumberFormat {
  /// The format of changed weights that had this one: the same, or 8 bits in blocks where this one cannot be written.
  fileprivate func written(_ shape: Shape) -> NumberFormat {
    isWritable ? self : converted(to: .q8, shape: shape)
  }
}
