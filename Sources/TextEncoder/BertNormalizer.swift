/// BERT's normalisation of a text, and how it is cut into words. Source: `BertNormalizer` and `BertPreTokenizer` of the library `tokenizers`, with the
/// Unicode versions of its tables.
struct BertNormalizer: Sendable {
  let lowercases: Bool
  let stripsAccents: Bool
  let isolatesIdeographs: Bool

  /// The words of a text: without control characters and white space, with every punctuation mark and ideograph by itself.
  func words(_ scalars: some Collection<Unicode.Scalar>) -> [[Unicode.Scalar]] {
    var words: [[Unicode.Scalar]] = []
    var word: [Unicode.Scalar] = []
    func end() {
      if !word.isEmpty { words.append(word) }
      word.removeAll()
    }
    for scalar in normalized(scalars) {
      let isAlone = scalar.isBertPunctuation || isolatesIdeographs && scalar.isIdeograph
      if isAlone || scalar.properties.isWhitespace { end() }
      if isAlone { words.append([scalar]) } else if !scalar.properties.isWhitespace { word.append(scalar) }
    }
    end()
    return words
  }

  private func normalized(_ scalars: some Collection<Unicode.Scalar>) -> [Unicode.Scalar] {
    var result = scalars.filter { !$0.isBertControl }
    if stripsAccents { result = CanonicalComposition.unicode9.decomposition(result).filter { !$0.isBertMark } }
    // Each scalar is lowered by itself: a sigma at the end of a word is no special case.
    return lowercases ? result.flatMap { Array($0.properties.lowercaseMapping.unicodeScalars) } : result
  }
}

/// Scalars that Unicode assigned after version 8 are none of these, whatever version the Swift library has.
extension Unicode.Scalar {
  fileprivate var isBertControl: Bool {
    switch value {
    case 0x09, 0x0A, 0x0D: return false
    case 0, 0xFFFD: return true
    default: break
    }
    switch properties.generalCategory {
    case .control, .privateUse: return true
    case .format: return isAssigned(inUnicode: 8)
    default: return false
    }
  }

  fileprivate var isBertPunctuation: Bool {
    if isASCII { return ([0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E] as [ClosedRange<UInt32>]).contains { $0.contains(value) } }
    switch properties.generalCategory {
    case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation, .finalPunctuation,
      .otherPunctuation:
      return isAssigned(inUnicode: 8)
    // Two marks that later versions of Unicode count as something else.
    default: return value == 0x166D || value == 0x111C9
    }
  }

  fileprivate var isBertMark: Bool {
    switch value {
    // Later versions of Unicode count these as something else.
    case 0x1734, 0x1171E: true
    case 0x1885, 0x1886, 0xA9BD, 0x111C9: false
    default: properties.generalCategory == .nonspacingMark && isAssigned(inUnicode: 8)
    }
  }

  /// The blocks that the original code calls Chinese characters, with its slip in the last but two.
  fileprivate var isIdeograph: Bool {
    let blocks: [ClosedRange<UInt32>] = [
      0x3400...0x4DBF, 0x4E00...0x9FFF, 0xF900...0xFAFF, 0x20000...0x2A6DF, 0x2A700...0x2B81F, 0x2B920...0x2CEAF, 0x2F800...0x2FA1F,
    ]
    return value >= 0x3400 && blocks.contains { $0.contains(value) }
  }
}
