import Foundation
import TestSupport
import Testing

/// The program that people copy is the one that is compiled.
@Suite struct ReadmeTests {
  private static func text(_ path: String) throws -> String {
    try String(contentsOf: fixtures.appending(path: "../../\(path)").standardized, encoding: .utf8)
  }

  @Test func tenLinesAreTheExample() throws {
    let blocks = try Self.text("README.md").components(separatedBy: "```swift\n").dropFirst()
    let program = try #require(blocks.first?.components(separatedBy: "```").first)
    #expect(try program == Self.text("Examples/Sources/TenLines/main.swift"))
    #expect(program.split(separator: "\n").count <= 10)
  }
}
