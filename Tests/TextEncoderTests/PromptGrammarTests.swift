import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionComponents
import Testing

/// The marks in prompts, as the programs read them whose marks they are (`Tests/Fixtures/prompts/make_prompts.py`).
@Suite struct PromptGrammarTests {
  /// A list of two, of which one is a text.
  private struct Pair: Decodable, Equatable {
    let text: String
    let number: Double

    init(_ text: String, _ number: Double) { (self.text, self.number) = (text, number) }

    init(from decoder: any Decoder) throws {
      var values = try decoder.unkeyedContainer()
      self.init(try values.decode(String.self), try values.decode(Double.self))
    }

    /// By scalars: `é` in one is not `é` in two.
    static func == (a: Pair, b: Pair) -> Bool { a.text.unicodeScalars.elementsEqual(b.text.unicodeScalars) && a.number == b.number }
  }

  private struct Case: Decodable {
    let text: String
    let webui: [Pair]
    let comfy: [Pair]
    let composition: [Pair]
    /// Nil where the brackets do not match.
    let schedule: [Pair]?
  }

  private static func cases() throws -> [Case] {
    try JSONDecoder().decode([Case].self, from: Data(contentsOf: fixtures.appending(path: "prompts/cases.json")))
  }

  @Test func readAsTheProgramsDo() throws {
    let cases = try Self.cases()
    #expect(cases.count > 350 && cases.count { $0.schedule != nil } > 150)
    for given in cases {
      func expect(_ found: [WeightedText], _ expected: [Pair], _ name: String) {
        #expect(found.map { Pair($0.text, $0.weight) } == expected, "\(name) of \(given.text.debugDescription)")
      }
      try expect(PromptProfile.webui.weightedTexts(given.text), given.webui, "webui")
      try expect(PromptProfile.comfy.weightedTexts(given.text), given.comfy, "comfy")
      expect(PromptProfile.webui.composition(given.text), given.composition, "composition")
      guard let schedule = given.schedule else { continue }
      let found = try PromptProfile.webui.schedule(given.text, steps: 10).map { Pair($0.text, Double($0.lastStep)) }
      #expect(found == schedule, "schedule of \(given.text.debugDescription)")
    }
  }

  @Test func plainTextIsPlain() throws {
    let text = "a (red:1.2) [apple|pear] AND BREAK"
    #expect(try PromptProfile.diffusers.weightedTexts(text) == [WeightedText(text)])
    #expect(PromptProfile.diffusers.composition(text) == [WeightedText(text)])
    #expect(try PromptProfile.diffusers.schedule(text, steps: 5).map(\.text) == [text])
  }

  /// What ends the run of the original, or makes pictures of no numbers, is text.
  @Test func numbersThatAreNone() throws {
    #expect(try PromptProfile.webui.weightedTexts("(a:1.2.3)") == [WeightedText("a:1.2.3", weight: 1.1)])
    #expect(try PromptProfile.webui.weightedTexts("(a:nan)") == [WeightedText("a:nan", weight: 1.1)])
    for written in ["nan", "inf", "1e999", "-Infinity"] {
      #expect(try PromptProfile.comfy.weightedTexts("(a:\(written))") == [WeightedText("a:\(written)", weight: 1.1)])
    }
    #expect(try PromptProfile.webui.schedule("[a:b:1e999]", steps: 4).map(\.text) == ["a"])
    #expect(try PromptProfile.webui.schedule("[a:b:-1e999]", steps: 4).map(\.text) == ["b"])
  }

  @Test func breaksAreParts() throws {
    let parts = try PromptProfile.webui.weightedTexts("a BREAK b")
    #expect(parts.map(\.isChunkBreak) == [false, true, false])
  }

  /// A megabyte of marks takes no more than a moment, and no stack; anything quadratic would take hours.
  @Test(
    .timeLimit(.minutes(2)),
    arguments: ["(", "[", "(a", "[a:", "(a)", "[a:b:1]", "[a|", ":", ")", "\\", "]", "[[a:1]:", "BREAK ", "AND ", "((a:1.1)"])
  func longPrompts(_ unit: String) throws {
    let text = String(repeating: unit, count: 1_000_000 / unit.utf8.count)
    for prompt in [text, text + String(repeating: unit.contains("(") ? ")" : ":1]", count: 300_000)] {
      #expect(try !PromptProfile.webui.weightedTexts(prompt).isEmpty)
      #expect(try !PromptProfile.comfy.weightedTexts(prompt).isEmpty)
      #expect(!PromptProfile.webui.composition(prompt).isEmpty)
      #expect(try !PromptProfile.webui.schedule(prompt, steps: 3).isEmpty)
    }
  }
}
