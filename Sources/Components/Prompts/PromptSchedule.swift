/// A prompt that changes from step to step: `[before:after:0.5]`, `[after:8]`, `[before::0.5]` and `[one|other]`.
///
/// What is no such construction stays as it is written: brackets that match nothing, and brackets of weights. A `|` or a `\` where the grammar has none makes
/// the whole prompt plain text. Source: the grammar of `get_learned_conditioning_prompt_schedules` of stable-diffusion-webui.
///
/// A prompt whose brackets do not match can be read in several ways. The webui's parser then takes a construction for text now and then; here it is always one.
struct PromptSchedule: Sendable {
  private let nodes: [Node]
  /// Of the prompt, in UTF-8.
  private let length: Int

  /// A part of the prompt.
  private indirect enum Node: Sendable {
    case text(String)
    /// The first up to a step, then the second.
    case changing(before: [Node], after: [Node], at: Moment)
    /// One in each step, in turn.
    case alternating([[Node]])
  }

  /// When a text changes: a step, or with a point a part of all steps.
  private struct Moment: Sendable {
    let value: Double
    let isPart: Bool

    func step(of steps: Int) -> Int {
      let exact = isPart ? value * Double(steps) : value
      return exact < Double(steps) ? Int(max(exact, -1)) : steps
    }
  }

  /// - Parameter text: a prompt, as it is written.
  init(_ text: String) {
    length = text.utf8.count
    var parser = Parser(text)
    nodes = parser.parse() ?? [.text(text)]
  }

  /// Texts of a prompt.
  private static let mostTexts = 1000
  /// UTF-8 of all of them together.
  private static let mostBytes = 1 << 26

  /// The texts in order, each with the last step that it is for, counted from 1; the last one is for the last step.
  /// - Throws: `ComponentError.outOfRange` for more than 1000 texts, or texts of more than 64 MB.
  func texts(steps: Int) throws(ComponentError) -> [(lastStep: Int, text: String)] {
    var ends: Set = [steps]
    Self.collect(nodes, steps, into: &ends)
    guard ends.count <= Self.mostTexts, ends.count == 1 || ends.count * length <= Self.mostBytes else {
      throw .outOfRange(
        component: "A prompt", option: "changes from step to step", value: "\(ends.count) texts of up to \(length) bytes",
        allowed: "of up to \(Self.mostTexts) texts with \(Self.mostBytes) bytes together")
    }
    return ends.sorted().map { step in
      var text = ""
      Self.write(nodes, at: step, of: steps, to: &text)
      return (step, text)
    }
  }

  private static func collect(_ nodes: [Node], _ steps: Int, into ends: inout Set<Int>) {
    for node in nodes {
      switch node {
      case .text: break
      case .changing(let before, let after, let moment):
        if moment.step(of: steps) >= 1 { ends.insert(moment.step(of: steps)) }
        for part in [before, after] { collect(part, steps, into: &ends) }
      case .alternating(let parts):
        if ends.count < steps { ends.formUnion(1...max(steps, 1)) }
        for part in parts { collect(part, steps, into: &ends) }
      }
    }
  }

  private static func write(_ nodes: [Node], at step: Int, of steps: Int, to text: inout String) {
    for node in nodes {
      switch node {
      case .text(let own): text += own
      case .changing(let before, let after, let moment):
        write(step <= moment.step(of: steps) ? before : after, at: step, of: steps, to: &text)
      case .alternating(let parts): write(parts[(step - 1) % parts.count], at: step, of: steps, to: &text)
      }
    }
  }

  /// Reads a prompt once from left to right. Brackets that turn out to be none stay in `nodes` as the text that they are.
  private struct Parser {
    /// An open bracket: where it stands among the nodes, its separators, and how deep the constructions in it are.
    struct Frame {
      let bracket: Unicode.Scalar
      let start: Int
      var separators: [(place: Int, scalar: Unicode.Scalar)] = []
      var depth = 0
    }

    /// Constructions inside one another. What is deeper is text.
    private static let mostLevels = 100
    private let scalars: [Unicode.Scalar]
    private var nodes: [Node] = []
    private var open: [Frame] = []

    init(_ text: String) { scalars = Array(text.unicodeScalars) }

    /// Nil where the grammar has no such prompt.
    mutating func parse() -> [Node]? {
      var place = 0
      while place < scalars.count {
        let scalar = scalars[place]
        place += 1
        switch scalar {
        case "(", "[":
          open.append(Frame(bracket: scalar, start: nodes.count))
          append(scalar)
        case ")", "]": guard close(scalar) else { return nil }
        case ":":
          if !open.isEmpty { open[open.count - 1].separators.append((nodes.count, scalar)) }
          append(scalar)
        case "|":
          guard open.last?.bracket == "[" else { return nil }
          open[open.count - 1].separators.append((nodes.count, scalar))
          append(scalar)
        default:
          var end = place - 1
          while end < scalars.count, !"()[]:|".unicodeScalars.contains(scalars[end]) {
            if scalars[end] == "\\" {
              end += 1
              guard end < scalars.count, scalars[end] != "\n" else { return nil }
            }
            end += 1
          }
          nodes.append(.text(String(String.UnicodeScalarView(scalars[(place - 1)..<end]))))
          place = end
        }
      }
      return giveUp() ? nodes : nil
    }

    private mutating func append(_ scalar: Unicode.Scalar) { nodes.append(.text(String(scalar))) }

    /// All open brackets are text.
    /// - Returns: false where one of them has a `|`, which is no text.
    private mutating func giveUp() -> Bool {
      defer { open = [] }
      return open.allSatisfy { frame in frame.separators.allSatisfy { $0.scalar == ":" } }
    }

    /// - Returns: false where the grammar has no such prompt.
    private mutating func close(_ scalar: Unicode.Scalar) -> Bool {
      guard let frame = open.last, frame.bracket == (scalar == ")" ? "(" : "[") else {
        append(scalar)
        return giveUp()
      }
      let colons = frame.separators.count { $0.scalar == ":" }
      if frame.separators.isEmpty || scalar == ")" && colons == 1 {
        append(scalar)
        open.removeLast()
        deepen(frame.depth)
        return true
      }
      guard scalar == "]", frame.depth < Self.mostLevels, let node = construction(frame, colons: colons) else {
        append(scalar)
        return giveUp()
      }
      nodes.replaceSubrange(frame.start..., with: [node])
      open.removeLast()
      deepen(frame.depth + 1)
      return true
    }

    private mutating func deepen(_ depth: Int) {
      if !open.isEmpty { open[open.count - 1].depth = max(open[open.count - 1].depth, depth) }
    }

    /// What a square bracket with separators is; nil where it is nothing.
    private func construction(_ frame: Frame, colons: Int) -> Node? {
      let ends = frame.separators.map(\.place) + [nodes.count]
      let sections = zip([frame.start] + ends, ends).map { Array(nodes[($0 + 1)..<$1]) }
      if colons == 0 { return .alternating(sections) }
      guard colons == frame.separators.count, colons <= 2, let moment = moment(sections[colons]) else { return nil }
      return .changing(before: colons == 2 ? sections[0] : [], after: sections[colons - 1], at: moment)
    }

    /// A number with spaces around it: digits with a point or an exponent or both, and a sign.
    private func moment(_ section: [Node]) -> Moment? {
      guard section.count == 1, case .text(let text) = section[0] else { return nil }
      let written = PythonNumber.trimmed(text)
      guard written.allSatisfy({ $0.isASCII && $0 != "_" }), let value = PythonNumber.any(written, hasExponents: true) else { return nil }
      return Moment(value: value, isPart: written.contains("."))
    }
  }
}
