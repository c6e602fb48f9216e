import Foundation
import Synchronization
import Testing

/// Says that a test compares with a reference. What it measures becomes a row of the table in `Docs/Compatibility.md`.
///
/// `make compatibility` names a file in the environment as `COMPARISONS`. Each test case then adds a line to it, with tabs between: group, row,
/// references, unit, test, how many errors were measured, and the error closest to what is allowed with what was allowed there.
/// `Scripts/write-compatibility` sums the lines up. Without that file nothing is written.
public struct Comparing: TestTrait, TestScoping {
  /// A part of the table.
  public enum Group: String, Sendable { case published, architectures, tasks, controls, adapters, schedulers, files, operations }

  /// What an error is measured in.
  public enum Unit: String, Sendable {
    /// Of the reference's root mean square.
    case rms
    /// Of the standard deviation of the reference's latents.
    case deviation
    /// As it is.
    case absolute
    /// Two things are the same or not; an error is 0.
    case equality
  }

  fileprivate let what: String
  fileprivate let group: Group
  fileprivate let references: [String]
  fileprivate let unit: Unit

  public func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void) async throws {
    guard let path = ProcessInfo.processInfo.environment["COMPARISONS"] else { return try await function() }
    let measurements = Measurements()
    try await Measurements.$current.withValue(measurements) { try await function() }
    let file = test.sourceLocation.fileID.replacing(".swift", with: "")
    let name = test.name.prefix { $0 != "(" }
    for (detail, sum) in measurements.sums.sorted(by: { $0.key < $1.key }) {
      let row = detail.isEmpty ? what : "\(what): \(detail)"
      let fields = [group.rawValue, row, references.joined(separator: ","), unit.rawValue, "\(file) \(name)"]
      let numbers = ["\(sum.count)", "\(sum.error)", "\(sum.allowed)"]
      try append((fields + numbers).joined(separator: "\t") + "\n", to: path)
    }
  }

  private func append(_ line: String, to path: String) throws {
    if !FileManager.default.fileExists(atPath: path) { try Data().write(to: URL(filePath: path)) }
    let handle = try FileHandle(forWritingTo: URL(filePath: path))
    defer { try? handle.close() }
    try handle.seekToEnd()
    try handle.write(contentsOf: Data(line.utf8))
  }
}

extension Trait where Self == Comparing {
  /// - Parameters:
  ///   - what: the row's first cell; tests with the same one share a row.
  ///   - references: packages, by the names that `Tests/Fixtures` pins their versions with.
  public static func compares(_ what: String, in group: Comparing.Group, with references: String..., unit: Comparing.Unit = .rms) -> Self {
    Comparing(what: what, group: group, references: references, unit: unit)
  }
}

/// What one test case has measured so far.
final class Measurements: Sendable {
  struct Sum {
    var count = 0
    var error: Float = 0
    var allowed: Float = 0
  }

  @TaskLocal static var current: Measurements?
  private let all = Mutex<[String: Sum]>([:])
  var sums: [String: Sum] { all.withLock { $0 } }

  /// How close an error is to what is allowed; of two that are none, the one that could be larger counts.
  private static func closeness(_ error: Float, _ allowed: Float) -> (Float, Float) { (error > 0 ? error / allowed : 0, allowed) }

  func note(_ error: Float, allowed: Float, detail: String) {
    all.withLock {
      var sum = $0[detail] ?? Sum()
      sum.count += 1
      if sum.count == 1 || Self.closeness(error, allowed) > Self.closeness(sum.error, sum.allowed) {
        (sum.error, sum.allowed) = (error, allowed)
      }
      $0[detail] = sum
    }
  }
}

/// Expects a measured error to be at most what is allowed, and notes both for a test that compares with a reference (`compares`).
/// - Parameter detail: a row of its own within the test's, where it is not empty.
public func expect(
  error: Float, atMost allowed: Float, _ comment: @autoclosure () -> String, detail: String = "",
  sourceLocation: SourceLocation = #_sourceLocation
) {
  Measurements.current?.note(error, allowed: allowed, detail: detail)
  if !(error <= allowed) { Issue.record("\(comment()); \(error) where \(allowed) is allowed", sourceLocation: sourceLocation) }
}

/// Expects what was found to be what the reference has, and notes that they were compared.
public func expectSame<Value: Equatable>(
  _ found: Value, _ expected: Value, _ comment: @autoclosure () -> String = "", sourceLocation: SourceLocation = #_sourceLocation
) {
  let isSame = found == expected
  Measurements.current?.note(isSame ? 0 : .infinity, allowed: 0, detail: "")
  if !isSame { Issue.record("\(comment()): \(found) is not \(expected)", sourceLocation: sourceLocation) }
}
