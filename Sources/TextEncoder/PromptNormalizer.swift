/// CLIP's normalisation of a text before it is cut into words: composition, runs of white space become one space, lower case.
enum PromptNormalizer {
  static func normalize(_ scalars: some Collection<Unicode.Scalar>) -> [Unicode.Scalar] {
    var result: [Unicode.Scalar] = []
    result.reserveCapacity(scalars.count)
    var afterSpace = false
    for scalar in CanonicalComposition.unicode9(Array(scalars)) {
      let isSpace = scalar.isASCII ? scalar.value == 0x20 || (0x09...0x0D).contains(scalar.value) : scalar.properties.isWhitespace
      if isSpace {
        if !afterSpace { result.append(" ") }
      } else if scalar.isASCII {
        result.append((0x41...0x5A).contains(scalar.value) ? Unicode.Scalar(UInt8(scalar.value) + 0x20) : scalar)
      } else {
        // Each scalar is lowered by itself: a sigma at the end of a word is no special case.
        appendLowercase(of: scalar, to: &result)
      }
      afterSpace = isSpace
    }
    return result
  }

  private static func appendLowercase(of scalar: Unicode.Scalar, to result: inout [Unicode.Scalar]) {
    switch scalar.properties.generalCategory {
    case .otherLetter, .otherSymbol, .nonspacingMark, .unassigned:
      // Most scripts have these letters without a case, which need no String. The circled letters do have a case.
      guard (0x24B6...0x24CF).contains(scalar.value) else { return result.append(scalar) }
      fallthrough
    default:
      result.append(contentsOf: scalar.properties.lowercaseMapping.unicodeScalars)
    }
  }
}
