/// Something that a model's files hold and that is not used, though it may matter.
public enum LoadWarning: Sendable, Equatable, CustomStringConvertible {
  /// Tensors of a component that its network does not have.
  case unusedTensors(component: String, names: [String])
  /// Tensors of a single file that belong to no component.
  case leftOver(names: [String])
  /// A component that nothing here runs.
  case unusedComponent(name: String, className: String)
  /// An adapter of which a part has no place in the model.
  case adapter(AdapterReport)
  /// A word of a textual inversion that has no vectors for some of the model's text encoders.
  case unlearned(word: String, path: String, encoders: [String])
  /// An adapter on a model with a limit on memory.
  case outsidePlan(name: String)

  public var description: String {
    func are(_ names: [String]) -> String { names.count == 1 ? "is" : "are" }
    return switch self {
    case .unusedTensors(let component, let names):
      "\(Self.list(names)) of the model's \(component) \(are(names)) not used."
    case .leftOver(let names):
      "\(Self.list(names)) of the file \(names.count == 1 ? "belongs" : "belong") to no part of the model and \(are(names)) not used."
    case .outsidePlan(let name):
      "\(name) and its image encoder take memory that the plan for this limit does not know of."
    case .unlearned(let word, let path, let encoders):
      "\(path) has no vectors for \(encoders.joined(separator: " and ")), so that \(word) is read there as other letters are."
    case .unusedComponent(let name, let className): "The model's \(name) (\(className)) is not used."
    case .adapter(let report):
      "\(Self.list(report.unused)) of \(report.path) \(are(report.unused)) not used; \(report.applied) of \(report.count) changes are applied."
    }
  }

  private static func list(_ names: [String]) -> String {
    let shown = names.prefix(3).joined(separator: ", ")
    return (names.count == 1 ? "The tensor " : "\(names.count) tensors (") + shown + (names.count > 3 ? ", …" : "")
      + (names.count == 1 ? "" : ")")
  }
}
