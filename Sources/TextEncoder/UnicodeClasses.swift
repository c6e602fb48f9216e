/// The classes of scalars in CLIP's regular expression: `\p{L}`, `\p{N}`, `\s` and the rest.
enum ScalarClass {
  case letter, number, space, other
}

extension Unicode.Scalar {
  /// Scalars that Unicode assigned after version 16 count as `other`, as in transformers' regular expressions,
  /// whatever version the Swift library has.
  var scalarClass: ScalarClass {
    if isASCII {
      switch value {
      case 0x41...0x5A, 0x61...0x7A: return .letter
      case 0x30...0x39: return .number
      case 0x09...0x0D, 0x20: return .space
      default: return .other
      }
    }
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter:
      return isAssigned(inUnicode: 16) ? .letter : .other
    case .decimalNumber, .letterNumber, .otherNumber:
      return isAssigned(inUnicode: 16) ? .number : .other
    default:
      return properties.isWhitespace ? .space : .other
    }
  }

  /// Whether a regular expression's `\w` matches. Added tokens that ask for whole words use it.
  var isWordScalar: Bool {
    if properties.isAlphabetic || properties.isJoinControl { return true }
    switch properties.generalCategory {
    case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: return true
    default: return false
    }
  }

  func isAssigned(inUnicode major: Int) -> Bool {
    properties.age.map { $0.major <= major } ?? false
  }
}
