import Tensor

/// What a run trains, so that a state is never put into another model.
public struct TrainingSubject: Sendable, Equatable, Codable {
  /// A parameter that is trained.
  public struct Parameter: Sendable, Equatable, Codable {
    /// The name in the checkpoint, such as `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight`.
    public let name: String
    /// The shape in the checkpoint.
    public let shape: Shape

    /// - Parameters:
    ///   - name: in the checkpoint.
    ///   - shape: in the checkpoint.
    public init(name: String, shape: Shape) { (self.name, self.shape) = (name, shape) }
  }

  /// What distinguishes the run, by a word that a message can use: `["model": …, "method": "lora", "rank": "16"]`.
  public let traits: [String: String]
  /// What is trained, in the order of the optimiser's lists.
  public let parameters: [Parameter]

  /// - Parameters:
  ///   - traits: what distinguishes the run, by a word that a message can use.
  ///   - parameters: what is trained; each name once.
  public init(traits: [String: String], parameters: [Parameter]) { (self.traits, self.parameters) = (traits, parameters) }

  /// The reason why this is not what another run trains, as the end of a sentence; nil if it is.
  func difference(from wanted: TrainingSubject) -> String? {
    for trait in Set(traits.keys).union(wanted.traits.keys).sorted() where traits[trait] != wanted.traits[trait] {
      return "its \(trait) is \(traits[trait] ?? "not set"), and this run's is \(wanted.traits[trait] ?? "not set")"
    }
    let known = Dictionary(parameters.map { ($0.name, $0.shape) }) { first, _ in first }
    for parameter in wanted.parameters {
      guard let shape = known[parameter.name] else { return "it does not have \(parameter.name)" }
      guard shape == parameter.shape else {
        return "\(parameter.name) has the shape \(shape) in it, and \(parameter.shape) in this run"
      }
    }
    let names = Set(wanted.parameters.map(\.name))
    if let other = parameters.first(where: { !names.contains($0.name) }) { return "it has \(other.name), which this run does not train" }
    return parameters == wanted.parameters ? nil : "its parameters have another order"
  }
}
