import Tensor

/// What a component says when it is given something that it cannot work on.
public enum ComponentError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A tensor has another shape than the component takes.
  case unexpectedShape(component: String, argument: String, expected: String, found: Shape)
  /// A side of a picture or latent is no multiple of what the component needs.
  case indivisibleSide(component: String, side: Int, multiple: Int)
  /// The component needs an input that it was not given.
  case missingInput(component: String, argument: String)
  /// The component was given an input that it does not declare.
  case undeclaredInput(component: String, name: String, declared: [String])
  /// The rows of conditioning are no multiple of the latents.
  case unexpectedRows(component: String, rows: Int, latents: Int)
  /// The conditioning has more or fewer text contexts than the component attends to.
  case unexpectedContexts(component: String, expected: Int, found: Int)
  /// Two conditionings that were to be joined have not the same inputs.
  case differentConditionings(String)
  /// The component's files hold nothing of a part that is needed.
  case missingPart(component: String, part: String)
  /// The component has not what an option asks for.
  case unsupported(component: String, option: String)
  /// A component was made for another one than it meets.
  case doesNotFit(component: String, reason: String)
  /// An option's value is none of those that the component takes.
  case outOfRange(component: String, option: String, value: String, allowed: String)

  public var description: String {
    switch self {
    case .unexpectedShape(let component, let argument, let expected, let found):
      "\(component) takes \(argument) of shape \(expected), but was given \(found)."
    case .indivisibleSide(let component, let side, let multiple):
      "\(component) takes sides that are multiples of \(multiple), but was given \(side)."
    case .missingInput(let component, let argument):
      "\(component) needs \(argument), which was not given."
    case .undeclaredInput(let component, let name, let declared):
      "\(component) has no input \(name); it takes \(declared.isEmpty ? "none" : declared.joined(separator: ", "))."
    case .unexpectedRows(let component, let rows, let latents):
      "\(component) was given \(rows) rows of conditioning for \(latents) latents; give a positive multiple of them."
    case .unexpectedContexts(let component, let expected, let found):
      "\(component) attends to \(expected) text context\(expected == 1 ? "" : "s"), but was given \(found)."
    case .differentConditionings(let difference):
      "Conditionings with different inputs cannot be joined: \(difference)."
    case .missingPart(let component, let part):
      "\(component) has no \(part): its files hold none."
    case .unsupported(let component, let option):
      "\(component) has no \(option); leave it out."
    case .doesNotFit(let component, let reason):
      "\(component) does not fit this model: \(reason)."
    case .outOfRange(let component, let option, let value, let allowed):
      "\(component) takes \(option) \(allowed), but was given \(value)."
    }
  }
}
