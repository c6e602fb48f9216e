import Foundation
import LatentDiffusionTestSupport
import Testing

@Suite struct ReadmeTests {
  /// The ten lines of the README are a target that is built, so they compile.
  @Test func theTenLinesAreAProgram() throws {
    let root = fixtures.deletingLastPathComponent().deletingLastPathComponent()
    let readme = try String(contentsOf: root.appending(path: "README.md"), encoding: .utf8)
    let program = try String(contentsOf: root.appending(path: "Examples/Sources/TenLines/main.swift"), encoding: .utf8)
    #expect(!program.isEmpty)
    #expect(readme.contains("```swift\n\(program)```"))
  }
}
