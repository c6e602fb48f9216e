import Tensor

/// Several components of a model that train together: a U-Net's low-rank changes and a text encoder's.
public struct TrainedComponents: Trainable {
  /// Each with the folder of the model that it belongs to.
  public var parts: [(component: String, trained: any Trainable)]

  /// - Parameter parts: each with the folder of the model that it belongs to, which differ.
  public init(_ parts: [(component: String, trained: any Trainable)]) { self.parts = parts }

  /// The names of the components' values, after the component and a dot.
  public var names: [String] { parts.flatMap { part in part.trained.names.map { "\(part.component).\($0)" } } }

  public var values: [Tensor] {
    get { parts.flatMap(\.trained.values) }
    _modify {
      var all = parts.flatMap(\.trained.values)
      let counts = parts.map(\.trained.values.count)
      // The parts let go of their tensors meanwhile, so that these are changed in place.
      for index in parts.indices { parts[index].trained.values = [] }
      defer {
        var rest = all[...]
        for (index, count) in counts.enumerated() {
          parts[index].trained.values = Array(rest.prefix(count))
          rest = rest.dropFirst(count)
        }
      }
      yield &all
    }
  }

  public func placed(in model: Adaptation.Model, on tape: GradientTape?, in context: ExecutionContext) throws -> PlacedParameters {
    let placed = try parts.map { try $0.trained.placed(in: model, on: tape, in: context) }
    var adaptation = Adaptation(of: model)
    for part in placed.map(\.adaptation) {
      adaptation.lowRank.merge(part.lowRank) { $1 }
      adaptation.matrices.merge(part.matrices) { $1 }
      adaptation.vectors.merge(part.vectors) { $1 }
    }
    return PlacedParameters(adaptation) { all in placed.flatMap { $0.gradients(from: all) } }
  }
}
