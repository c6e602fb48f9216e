import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import Testing

/// The marks in prompts, as compel reads them (`Tests/Fixtures/prompts/make_compel.py`).
@Suite struct CompelPromptTests {
  /// A list of two.
  private struct Pair<First: Decodable & Equatable, Second: Decodable & Equatable>: Decodable, Equatable {
    let (first, second): (First, Second)

    init(_ first: First, _ second: Second) { (self.first, self.second) = (first, second) }

    init(from decoder: any Decoder) throws {
      var values = try decoder.unkeyedContainer()
      self.init(try values.decode(First.self), try values.decode(Second.self))
    }
  }

  private typealias Weighted = Pair<String, Double>
  private typealias Part = Pair<[Pair<[Weighted], Double>], Double>

  private struct Case: Decodable {
    let text: String
    let parts: [Part]?
    let loras: [Weighted]?
    let error: String?
  }

  private static func parts(_ prompt: CompelPrompt) -> [Part] {
    prompt.parts.map { part in Pair(part.blend.map { Pair($0.texts.map { Pair($0.text, $0.weight) }, $0.share) }, part.weight) }
  }

  @Test func readAsCompelDoes() throws {
    let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: fixtures.appending(path: "prompts/compel.json")))
    #expect(cases.count > 450 && cases.count { $0.error != nil } > 20)
    for given in cases {
      let name = "\(given.text.prefix(200).debugDescription)"
      guard let parts = given.parts, let loras = given.loras else {
        #expect(throws: ComponentError.self, "\(name) \(given.error ?? "")") { try CompelPrompt.takingLoras(from: given.text) }
        continue
      }
      do {
        let taken = try CompelPrompt.takingLoras(from: given.text)
        #expect(taken.loras.map { Pair($0.name, $0.weight) } == loras, "\(name)")
        let found = Self.parts(try CompelPrompt(taken.text))
        #expect(found == parts, "\(name)")
        // Text for text, not letter for letter.
        #expect(found.description.unicodeScalars.elementsEqual(parts.description.unicodeScalars), "\(name)")
        if !loras.isEmpty { #expect(throws: ComponentError.self, "\(name)") { try CompelPrompt(given.text) } }
      } catch { Issue.record("\(name): \(error)") }
    }
  }

  /// What other programs read is text; a prompt that cannot be read is told before anything is drawn.
  @Test func profile() throws {
    let profile = PromptProfile.compel
    #expect(
      try profile.weightedTexts("a (cat)2 AND [b|c]") == [WeightedText("a"), WeightedText("cat", weight: 2), WeightedText("AND [b|c]")])
    #expect(profile.composition("a AND b") == [WeightedText("a AND b")])
    #expect(try profile.schedule("[a:b:2]", steps: 5).map(\.text) == ["[a:b:2]"])
    #expect(throws: ComponentError.self) { try profile.schedule("cat.swap(dog)", steps: 5) }
    let many = Array(repeating: "\"a\"", count: 101).joined(separator: ", ")
    #expect(throws: ComponentError.self) { try CompelPrompt("(\(many)).and()") }
  }

  /// Brackets inside one another are read up to a hundred.
  @Test func levels() throws {
    func nested(_ levels: Int) -> String { String(repeating: "(", count: levels) + "a" + String(repeating: ")+", count: levels) }
    #expect(try CompelPrompt(nested(10)).texts.map(\.text) == ["a"] && CompelPrompt(nested(100)).texts.map(\.text) == ["a"])
    #expect(try CompelPrompt(nested(101)).texts == [WeightedText(nested(101))])
    #expect(try CompelPrompt(nested(100_000)).texts.count == 1)
  }

  /// Many marks take no more than a moment, and no stack; anything quadratic would take minutes.
  @Test(
    .timeLimit(.minutes(2)),
    arguments: [
      "(", "( ", "(a", "(a ", "(a)", "(a)+ ", "a+", "a+ ", "+", "-", ".", ",", "\\", "\\(", "\"", "\" ", "\"a", "\"(", "\\\"", "\"a\"+ ",
      "(\"a\")", ")", "=", "(=",
      "a.swap(", "a.swap(b) ", "withLora(", "withLora(a) ", "(a)1", "(a).attend(", "\n", "   ", "(\"a\",", "((a)+", "((a)+ ", "1", "\"a\n",
    ])
  func longPrompts(_ unit: String) {
    let text = String(repeating: unit, count: 100_000 / unit.utf8.count)
    for prompt in [text, text + String(repeating: ")", count: 30_000), "(" + text + ")+", "\"" + text + "\"+", "(" + text + ").blend(1)"] {
      // Read or refused.
      #expect((try? CompelPrompt.takingLoras(from: prompt))?.text.isEmpty != true)
    }
  }
}
