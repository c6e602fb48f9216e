import Tensor

extension AdapterMatch {
  /// The same changes, but for parameters whose changes can all be added to a product.
  package func dense(in component: String) -> AdapterMatch {
    let dense = (changes[component] ?? [:]).filter { !$0.value.isOfLowRank }
    return AdapterMatch(changes: [component: dense], reports: [])
  }

  /// The changes of a component, by the names of its parameters.
  package func changes(of component: String) -> ParameterChanges { ParameterChanges(changes: changes[component] ?? [:]) }

  /// The changes that are merged, and those that are added while a model runs: changes of low rank to matrices that are streamed, which stay as their file
  /// has them.
  ///
  /// - Parameter streamed: names of matrices, by component.
  package func parted(streamed: [String: Set<String>]) -> (merged: AdapterMatch, added: AdapterMatch) {
    func filtered(_ isAdded: Bool) -> AdapterMatch {
      let kept = changes.map { component, all in
        (component, all.filter { ($0.value.isOfLowRank && streamed[component]?.contains($0.key) ?? false) == isAdded })
      }
      return AdapterMatch(changes: Dictionary(uniqueKeysWithValues: kept.filter { !$0.1.isEmpty }), reports: [])
    }
    return (filtered(false), filtered(true))
  }

  /// The bytes that the changes of a parameter take while it is streamed: of the factors, or of a changed copy, which is not streamed any more. Nil: it is
  /// not changed.
  package func bytes(of parameter: String, in component: String, shape: Shape, copy: Int) -> Int? {
    guard let changes = changes[component]?[parameter] else { return nil }
    guard changes.isOfLowRank else { return copy }
    let rank = changes.compactMap(\.rank).reduce(0, +)
    let down = PackedMatrix.packedBytes(Shape([rank] + shape.dimensions.dropFirst()), of: .float32)
    return (down ?? copy) + (PackedMatrix.packedBytes([shape[0], rank], of: .float32) ?? copy)
  }

  /// The components that are changed.
  package var components: [String] { changes.keys.sorted() }
}

/// Changes of a component's parameters.
package struct ParameterChanges: Sendable {
  let changes: [String: [WeightChange]]
}

extension [WeightChange] {
  /// Whether all can be added to a product.
  fileprivate var isOfLowRank: Bool { allSatisfy { $0.lowRank != nil } }
}

extension Adaptation {
  /// Adds changes to a component's parameters.
  ///
  /// - Parameters:
  ///   - labels: of the parameters.
  ///   - source: the component's weights, with the changes that are not of low rank.
  /// - Throws: `AdapterError`, `WeightError`, `CancellationError`.
  package mutating func add(
    _ all: ParameterChanges, to labels: [ParameterLabel], from source: any WeightSource, in context: ExecutionContext
  ) throws {
    let gated = Set(labels.filter(\.isGated).map { $0.name.dropLast("weight".count) })
    for (name, changes) in all.changes.sorted(by: { $0.key < $1.key }) {
      guard let label = labels.first(where: { $0.name == name }) else {
        throw AdapterError.onlyAtLoading(path: changes.first?.path ?? "", parameter: name)
      }
      if label.isMatrix, changes.isOfLowRank {
        lowRank[label.id] = try changes.joined(for: label, in: context)
        continue
      }
      let weights = try source.tensor(name, shape: label.shape)
      if label.isMatrix {
        matrices[label.id] = try PackedMatrix(weights, isGated: label.isGated, in: context)
      } else {
        let isGated = gated.contains(name.dropLast("bias".count))
        vectors[label.id] = isGated ? weights.decoded().arrangedForGates() : weights.decoded()
      }
    }
  }
}

extension [WeightChange] {
  /// All changes as one, of the sum of their ranks.
  fileprivate func joined(for label: ParameterLabel, in context: ExecutionContext) throws -> Adaptation.LowRank {
    let pairs = compactMap(\.lowRank)
    let downs = try pairs.map { try $0.down.down(in: context) }
    let down = Tensor.concatenated(downs, axis: 0), up = Tensor.concatenated(pairs.map { $0.scale * $0.down.up }, axis: 1)
    let shape = Shape([down.shape[0]] + label.shape.dimensions.dropFirst())
    return try Adaptation.LowRank(down: down.reshaped(shape), up: up, isGated: label.isGated, in: context)
  }
}
