import Tensor

/// What a component says when it is given something that it cannot work on.
public enum ComponentError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A tensor has another shape than the component takes.
  case unexpectedShape(component: String, argument: String, expected: String, found: Shape)
  /// A side of a picture or latent is no multiple of what the component needs.
  case indivisibleSide(component: String, side: Int, multiple: Int)
  /// The component needs an input that it was not given.
  case missingInput(component: String, argument: String)
  /// The component has not what an option asks for.
  case unsupported(component: String, option: String)
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
    case .unsupported(let component, let option):
      "\(component) has no \(option); leave it out."
    case .outOfRange(let component, let option, let value, let allowed):
      "\(component) takes \(option) \(allowed), but was given \(value)."
    }
  }
}
