/// Unicode's normalisation form C (UAX #15), as of Unicode 9.0.
///
/// CLIP's tokenizer composes its text with tables of that version. Marks that were assigned later count as base characters, of class 0. A
/// platform's own normalisation uses another version of Unicode, so this one has its own decompositions.
struct CanonicalComposition: Sendable {
  static let unicode9 = CanonicalComposition()

  /// Full canonical decompositions, Hangul excepted.
  private var decompositions: [Unicode.Scalar: [Unicode.Scalar]] = [:]
  private var compositions: [Pair: Unicode.Scalar] = [:]

  private struct Pair: Hashable {
    let first, second: Unicode.Scalar
  }

  private struct Ordered {
    let scalar: Unicode.Scalar
    /// Canonical_Combining_Class; 0 is a starter.
    let combiningClass: UInt8
  }

  private init() {
    for run in canonicalDecompositionRuns.split(whereSeparator: \.isWhitespace) {
      let halves = run.split(separator: "=")
      guard halves.count == 2, let start = UInt32(halves[0], radix: 16) else { continue }
      for (offset, item) in halves[1].split(separator: ",").enumerated() {
        let parts = item.drop { $0 == "!" }.split(separator: "+").compactMap { UInt32($0, radix: 16).flatMap(Unicode.Scalar.init) }
        guard let scalar = Unicode.Scalar(start + UInt32(offset)) else { continue }
        decompositions[scalar] = parts
        if parts.count == 2, item.first != "!" { compositions[Pair(first: parts[0], second: parts[1])] = scalar }
      }
    }
    for (scalar, parts) in decompositions { decompositions[scalar] = parts.flatMap(expanded) }
  }

  private func expanded(_ scalar: Unicode.Scalar) -> [Unicode.Scalar] {
    decompositions[scalar].map { $0.flatMap(expanded) } ?? [scalar]
  }

  func callAsFunction(_ scalars: [Unicode.Scalar]) -> [Unicode.Scalar] {
    // Below the first combining mark nothing composes or reorders.
    if scalars.allSatisfy({ $0.value < 0x300 }) { return scalars }
    return composed(decomposed(scalars))
  }

  /// The canonical decomposition alone (form D).
  func decomposition(_ scalars: [Unicode.Scalar]) -> [Unicode.Scalar] {
    scalars.allSatisfy { $0.value < 0xC0 } ? scalars : decomposed(scalars).map(\.scalar)
  }

  private func decomposed(_ scalars: [Unicode.Scalar]) -> [Ordered] {
    var result: [Ordered] = []
    result.reserveCapacity(scalars.count + scalars.count / 4)
    var marks = 0  // where the marks since the last starter begin
    func append(_ scalar: Unicode.Scalar) {
      let combiningClass = scalar.canonicalCombiningClass9
      if combiningClass == 0 {
        sortMarks(&result, from: marks)
        marks = result.count + 1
      }
      result.append(Ordered(scalar: scalar, combiningClass: combiningClass))
    }
    for scalar in scalars {
      if scalar.value < 0xC0 {
        append(scalar)
      } else if let syllable = HangulSyllable(scalar) {
        syllable.jamo.forEach(append)
      } else if let parts = decompositions[scalar] {
        parts.forEach(append)
      } else {
        append(scalar)
      }
    }
    sortMarks(&result, from: marks)
    return result
  }

  /// The canonical ordering: stable, by combining class.
  private func sortMarks(_ scalars: inout [Ordered], from start: Int) {
    let marks = scalars[min(start, scalars.count)...]
    if zip(marks, marks.dropFirst()).allSatisfy({ $0.combiningClass <= $1.combiningClass }) { return }
    let sorted = marks.enumerated().sorted {
      ($0.element.combiningClass, $0.offset) < ($1.element.combiningClass, $1.offset)
    }
    scalars.replaceSubrange(start..., with: sorted.lazy.map(\.element))
  }

  private func composed(_ scalars: [Ordered]) -> [Unicode.Scalar] {
    var result: [Unicode.Scalar] = []
    result.reserveCapacity(scalars.count)
    var starter: Int?
    var lastClass: UInt8 = 0
    for item in scalars {
      if let index = starter, index == result.count - 1 || lastClass < item.combiningClass,
        let composite = composite(result[index], item.scalar)
      {
        result[index] = composite
        continue
      }
      if item.combiningClass == 0 { starter = result.count }
      lastClass = item.combiningClass
      result.append(item.scalar)
    }
    return result
  }

  private func composite(_ first: Unicode.Scalar, _ second: Unicode.Scalar) -> Unicode.Scalar? {
    // No pair begins or ends below these.
    guard first.value >= 0x3C, second.value >= 0x300 else { return nil }
    return HangulSyllable.composite(first, second) ?? compositions[Pair(first: first, second: second)]
  }
}

/// Hangul's arithmetic (The Unicode Standard, section 3.12).
private struct HangulSyllable {
  private static let (syllables, leads, vowels, trails) = (UInt32(0xAC00), UInt32(0x1100), UInt32(0x1161), UInt32(0x11A7))
  private static let (leadCount, vowelCount, trailCount) = (UInt32(19), UInt32(21), UInt32(28))

  let index: UInt32

  init?(_ scalar: Unicode.Scalar) {
    guard scalar.value >= Self.syllables, scalar.value < Self.syllables + Self.leadCount * Self.vowelCount * Self.trailCount else {
      return nil
    }
    index = scalar.value - Self.syllables
  }

  var jamo: [Unicode.Scalar] {
    let lead = Self.leads + index / (Self.vowelCount * Self.trailCount)
    let vowel = Self.vowels + index / Self.trailCount % Self.vowelCount
    let trail = Self.trails + index % Self.trailCount
    return (trail == Self.trails ? [lead, vowel] : [lead, vowel, trail]).compactMap(Unicode.Scalar.init)
  }

  static func composite(_ first: Unicode.Scalar, _ second: Unicode.Scalar) -> Unicode.Scalar? {
    let (a, b) = (first.value, second.value)
    if a >= leads, a < leads + leadCount, b >= vowels, b < vowels + vowelCount {
      return Unicode.Scalar(syllables + ((a - leads) * vowelCount + (b - vowels)) * trailCount)
    }
    if let syllable = HangulSyllable(first), syllable.index % trailCount == 0, b > trails, b < trails + trailCount {
      return Unicode.Scalar(a + (b - trails))
    }
    return nil
  }
}

extension Unicode.Scalar {
  fileprivate var canonicalCombiningClass9: UInt8 {
    guard value >= 0x300 else { return 0 }
    let combiningClass = properties.canonicalCombiningClass.rawValue
    return combiningClass != 0 && isAssigned(inUnicode: 9) ? combiningClass : 0
  }
}
