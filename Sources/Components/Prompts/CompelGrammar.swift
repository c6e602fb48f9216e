import Foundation

/// What stands in a prompt of compel: words and marks as they are written, inside one another.
///
/// A grammar whose alternatives are tried in order and never again. What a bracket or a quotation mark begins is read once, from the end of the prompt to its
/// beginning, so that what it has inside is known. Source: `build_parser_syntax` of compel, and the matching of pyparsing.
struct CompelGrammar {
  /// A part of a prompt.
  indirect enum Node {
    case text(String)
    /// What is inside counts so many times as much.
    case weighted(Double, [Node])
    /// `withLora(name, 0.8)`, and where it stands.
    case lora(name: String, weight: Double, range: Range<Int>)
    /// `.swap(…)`.
    case swap
  }

  /// Nodes, and the place behind them.
  struct Match {
    var nodes: [Node]
    var end: Int
    /// Brackets inside one another.
    var depth = 0
  }

  /// What `(…).blend(…)` or `(…).and(…)` says.
  struct Combination {
    let prompts: [[Node]]
    /// Those that are no numbers stay texts.
    let arguments: [Argument]
    let end: Int
  }

  /// One between commas: the number, or what stands before an equals sign, or a word.
  enum Argument: Equatable {
    case number(Double)
    case word(String)
  }

  /// Brackets inside one another. compel has no limit, but takes four times as long with each; what is deeper is text here.
  private static let mostLevels = 100

  let scalars: [Unicode.Scalar]
  /// Where the scalars begin in the whole prompt, for LoRAs.
  private let offset: Int
  /// What brackets and quotation marks begin, by their places.
  private var groups: [Int: Match] = [:]
  /// The places behind brackets that hold what `.swap` puts there.
  private var replacements: [Int: Int] = [:]
  /// The mark that closes each quotation mark.
  private var closing: [Int: Int] = [:]

  /// - Parameter isQuoted: whether these stand between quotation marks, where no others are.
  init(_ scalars: [Unicode.Scalar], offset: Int = 0, isQuoted: Bool = false) {
    (self.scalars, self.offset) = (scalars, offset)
    if !isQuoted { closing = Self.closingMarks(scalars) }
    for place in scalars.indices.reversed() {
      // What stands behind a backslash belongs to a word.
      if scalars[place] == "(", place == 0 || scalars[place - 1] != "\\" {
        groups[place] = bracket(at: place)
        replacements[place] = replacement(at: place)
      } else if closing[place] != nil {
        groups[place] = quotation(at: place, inPrompt: false)
      }
    }
  }

  // MARK: whole prompts

  /// What stands from a place on to the end of a prompt, or to what no prompt has.
  func prompt(from start: Int) -> Match {
    var result = Match(nodes: [], end: start)
    while result.end < scalars.count {
      if let next = marked(result.end) ?? freeWord(result.end) {
        result.take(next)
      } else if scalars[result.end].isCompelSpace {
        result.end = skipping(result.end)
      } else {
        break
      }
    }
    return result
  }

  /// Prompts in brackets, an operator behind them, and what that is told.
  func combination(_ operators: [String], from start: Int) -> Combination? {
    func prompt(_ start: Int) -> Match? { target(start) ?? quotation(at: skipping(start), inPrompt: true) }
    guard var last = literal("(", start).flatMap(prompt) else { return nil }
    var prompts = [last.nodes]
    while let next = literal(",", last.end).flatMap(prompt) {
      prompts.append(next.nodes)
      last = next
    }
    guard let closed = literal(")", last.end), let named = operators.lazy.compactMap({ literal($0, closed) }).first,
      let opened = literal("(", named)
    else { return nil }
    let (arguments, end) = arguments(opened)
    return literal(")", end).map { Combination(prompts: prompts, arguments: arguments, end: $0) }
  }

  /// LoRAs in a row.
  func loras(from start: Int) -> Match {
    var result = Match(nodes: [], end: start)
    while let next = lora(result.end) { result.take(next) }
    return result
  }

  /// Whether nothing but spaces follows.
  func isEnd(_ place: Int) -> Bool { skipping(place) == scalars.count }

  // MARK: parts of prompts

  /// What stands in a bracket or a quotation: words without marks, marks, and where it may be, what stands between sentences.
  private func fragments(from start: Int, hasStops: Bool) -> Match {
    var result = Match(nodes: [], end: start)
    while true {
      if let next = marked(result.end) ?? word(result.end) {
        result.take(next)
      } else if hasStops, let end = literal(",", result.end) ?? literal(".", result.end) {
        result.take(Match(nodes: [.text(String(scalars[end - 1]))], end: end))
      } else {
        return result
      }
    }
  }

  /// A part that has marks.
  private func marked(_ start: Int) -> Match? {
    if let lora = lora(start) { return lora }
    let target = target(start)
    if let target, let found = attention(target) ?? swap(target) { return found }
    return group(start)
  }

  /// What an operator can be for.
  private func target(_ start: Int) -> Match? { group(start) ?? word(start) }

  /// A bracket or a quotation.
  private func group(_ start: Int) -> Match? { groups[skipping(start)] }

  private func attention(_ target: Match) -> Match? {
    func weighted(_ weight: Double, _ end: Int) -> Match { Match(nodes: [.weighted(weight, target.nodes)], end: end, depth: target.depth) }
    if let opened = literal(".attend", target.end).flatMap({ literal("(", $0) }), let (weight, end) = sign(opened) ?? number(opened),
      let closed = literal(")", end)
    {
      return weighted(weight, closed)
    }
    guard target.end < scalars.count, !scalars[target.end].isCompelSpace else { return nil }
    // A number stands behind brackets and quotations alone.
    guard let (weight, end) = sign(target.end) ?? (target.isGroup ? number(target.end) : nil) else { return nil }
    return weighted(weight, end)
  }

  private func swap(_ target: Match) -> Match? {
    literal(".swap", target.end).flatMap { replacements[skipping($0)] }.map { Match(nodes: [.swap], end: $0, depth: target.depth) }
  }

  private func lora(_ start: Int) -> Match? {
    guard let opened = (literal("useLora", start) ?? literal("withLora", start)).flatMap({ literal("(", $0) }),
      let (name, named) = keyword(opened)
    else { return nil }
    let weight = literal(",", named).flatMap { number($0) }
    guard let end = literal(")", weight?.end ?? named) else { return nil }
    let node = Node.lora(name: name, weight: weight?.value ?? 1, range: offset + skipping(start)..<offset + end)
    return Match(nodes: [node], end: end)
  }

  private func bracket(at place: Int) -> Match? {
    let inside = fragments(from: place + 1, hasStops: true)
    guard inside.depth < Self.mostLevels, let end = literal(")", inside.end) else { return nil }
    return Match(nodes: inside.nodes, end: end, depth: inside.depth + 1)
  }

  private func replacement(at place: Int) -> Int? {
    let inside = fragments(from: place + 1, hasStops: false)
    guard inside.depth < Self.mostLevels else { return nil }
    if let comma = literal(",", inside.end), let end = literal(")", arguments(comma).end) { return end }
    return literal(")", inside.end)
  }

  /// What stands between quotation marks.
  /// - Parameter inPrompt: whether it is a prompt by itself, in which all words are free.
  private func quotation(at place: Int, inPrompt: Bool) -> Match? {
    guard let close = closing[place] else { return nil }
    let inside = Self.withoutEscapes(scalars[(place + 1)..<close])
    guard !inside.allSatisfy(\.isPythonSpace) else { return Match(nodes: [.text("")], end: close + 1, depth: 1) }
    let grammar = CompelGrammar(inside, offset: offset + place + 1, isQuoted: true)
    let found = inPrompt ? grammar.prompt(from: 0) : grammar.fragments(from: 0, hasStops: true)
    guard found.depth < Self.mostLevels, grammar.isEnd(found.end) else { return nil }
    return Match(nodes: found.nodes, end: close + 1, depth: found.depth + 1)
  }

  // MARK: words, numbers, spaces

  /// A word without marks: a backslash takes a mark's meaning away, and a sign within a word has none.
  private func word(_ start: Int) -> Match? {
    let start = skipping(start)
    var end = start
    while end < scalars.count {
      let next = end + 1 < scalars.count ? scalars[end + 1] : nil
      if scalars[end] == "\\", next?.isCompelMark == true {
        end += 2
      } else if scalars[end] == "+" || scalars[end] == "-" {
        guard let next, !next.isCompelSpace, !next.isCompelMark else { break }
        end += 1
      } else {
        guard !scalars[end].isCompelMark, !scalars[end].endsFreeWord else { break }
        end += 1
      }
    }
    return end > start ? Match(nodes: [.text(written(start..<end))], end: end) : nil
  }

  /// All up to a space.
  private func freeWord(_ start: Int) -> Match? {
    let end = scalars[start...].firstIndex(where: \.endsFreeWord) ?? scalars.count
    return end > start ? Match(nodes: [.text(written(start..<end))], end: end) : nil
  }

  private func written(_ range: Range<Int>) -> String { String(String.UnicodeScalarView(scalars[range])) }

  /// `++` or `--`.
  private func sign(_ start: Int) -> (value: Double, end: Int)? {
    let start = skipping(start)
    guard start < scalars.count, scalars[start] == "+" || scalars[start] == "-" else { return nil }
    let end = scalars[start...].firstIndex { $0 != scalars[start] } ?? scalars.count
    return (pow(scalars[start] == "+" ? 1.1 : 0.9, Double(end - start)), end)
  }

  /// Digits, with a point or without one.
  private func number(_ start: Int) -> (value: Double, end: Int)? {
    let start = skipping(start)
    func digits(_ start: Int, _ isDigit: (Unicode.Scalar) -> Bool) -> Int {
      start < scalars.count ? scalars[start...].firstIndex { !isDigit($0) } ?? scalars.count : start
    }
    func value(_ end: Int) -> (Double, Int)? { PythonNumber.any(written(start..<end), hasExponents: false).map { ($0, end) } }
    guard start < scalars.count else { return nil }
    let hasSign = scalars[start] == "+" || scalars[start] == "-", first = hasSign ? start + 1 : start
    let whole = digits(first) { $0.properties.numericType == .decimal }
    if whole < scalars.count, scalars[whole] == "." {
      let end = digits(whole + 1) { $0.properties.numericType == .decimal }
      if whole > first || end > whole + 1 { return value(end) }
    }
    let end = digits(first) { ("0"..."9").contains($0) }
    return end > first && scalars[start] != "+" ? value(end) : nil
  }

  private func keyword(_ start: Int) -> (name: String, end: Int)? {
    let start = skipping(start)
    guard start < scalars.count else { return nil }
    let end = scalars[start...].firstIndex { !$0.isCompelKeyword } ?? scalars.count
    return end > start ? (written(start..<end), end) : nil
  }

  /// What an operator is told, between commas.
  private func arguments(_ start: Int) -> (all: [Argument], end: Int) {
    var all: [Argument] = [], end = start
    while let next = argument(all.isEmpty ? end : literal(",", end)) {
      all.append(next.argument)
      end = next.end
    }
    return (all, end)
  }

  private func argument(_ start: Int?) -> (argument: Argument, end: Int)? {
    guard let start else { return nil }
    let named = keyword(start)
    if let named, let equals = literal("=", named.end), let end = number(equals)?.end ?? keyword(equals)?.end {
      return (.word(named.name), end)
    }
    if let number = number(start) { return (.number(number.value), number.end) }
    return named.map { (.word($0.name), $0.end) }
  }

  /// The place behind a text, with spaces before it.
  private func literal(_ text: String, _ start: Int) -> Int? {
    let start = skipping(start)
    var end = start
    for scalar in text.unicodeScalars {
      guard end < scalars.count, scalars[end] == scalar else { return nil }
      end += 1
    }
    return end
  }

  private func skipping(_ start: Int) -> Int {
    var place = start
    while place < scalars.count, scalars[place].isCompelSpace { place += 1 }
    return place
  }

  // MARK: quotation marks

  /// The mark that closes each one that can be open: the next on its line without a backslash, or else the last one with it.
  private static func closingMarks(_ scalars: [Unicode.Scalar]) -> [Int: Int] {
    var closing: [Int: Int] = [:], plain: Int?, escaped: Int?
    for place in scalars.indices.reversed() {
      switch scalars[place] {
      case "\n", "\r": (plain, escaped) = (nil, nil)
      case "\"" where place > 0 && scalars[place - 1] == "\\": escaped = escaped ?? place
      case "\"":
        closing[place] = plain ?? escaped
        (plain, escaped) = (place, nil)
      default: break
      }
    }
    return closing
  }

  /// pyparsing takes `\n` and its like between quotation marks for spaces.
  private static func withoutEscapes(_ scalars: ArraySlice<Unicode.Scalar>) -> [Unicode.Scalar] {
    var result = Array(scalars), place = 0
    while place + 1 < result.count {
      if result[place] == "\\", "tnrf".unicodeScalars.contains(result[place + 1]) {
        result.replaceSubrange(place...place + 1, with: [result[place + 1] == "f" ? "\u{C}" : " ", " "])
        place += 1
      }
      place += 1
    }
    return result
  }
}

extension CompelGrammar.Match {
  fileprivate mutating func take(_ next: Self) {
    nodes += next.nodes
    (end, depth) = (next.end, max(depth, next.depth))
  }

  /// Whether it is a bracket or a quotation, not a word.
  fileprivate var isGroup: Bool { depth > 0 }
}

extension Unicode.Scalar {
  /// What may stand between any two parts.
  fileprivate var isCompelSpace: Bool { self == " " || self == "\n" || self == "\t" || self == "\r" }
  fileprivate var endsFreeWord: Bool { isCompelSpace || self == "\u{B}" || self == "\u{C}" }
  fileprivate var isCompelMark: Bool {
    switch self {
    case "(", ")", "\"", ",", ".", "+", "-", "=": true
    default: false
    }
  }
  fileprivate var isCompelKeyword: Bool {
    self == "_" || self == "-" || ("0"..."9").contains(self) || ("a"..."z").contains(self) || ("A"..."Z").contains(self)
  }
}
