import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Testing

/// Patterns of modules' names, against what PEFT takes: `Tests/Fixtures/adapters/make_adapters.py`.
@Suite struct ModulePatternTests {
  private struct Reference: Decodable {
    struct Case: Decodable {
      let patterns: [String]
      let found: [String?]
    }
    let modules: [String]
    let cases: [Case]
  }

  @Test func theSamePatternsAreTaken() throws {
    let data = try Data(contentsOf: fixtures.appending(path: "adapters/patterns.json"))
    let reference = try JSONDecoder().decode(Reference.self, from: data)
    #expect(reference.cases.count == 20)
    for given in reference.cases {
      let patterns = try given.patterns.map { ($0, try ModulePattern($0)) }
      for (module, expected) in zip(reference.modules, given.found) {
        #expect(patterns.first { $0.1.matches(module) }?.0 == expected, "\(module) among \(given.patterns)")
      }
    }
  }

  @Test(arguments: ["(a", "[", "*", "a{2,1}", "(?R)"]) func whatIsNoExpressionIsAnError(_ pattern: String) {
    #expect(throws: (any Error).self) { try ModulePattern(pattern) }
  }
}
