import Foundation
import LatentDiffusionFiles
import Testing

/// A folder that is gone when the test is over.
final class Scratch {
  let url = FileManager.default.temporaryDirectory.appending(path: "file-writing-" + UUID().uuidString)

  init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(at: url) }

  var names: [String] { get throws { try FileManager.default.contentsOfDirectory(atPath: url.path(percentEncoded: false)).sorted() } }
  func file(_ name: String) -> URL { url.appending(path: name) }
  func permissions(_ name: String) throws -> Int? {
    try FileManager.default.attributesOfItem(atPath: file(name).path(percentEncoded: false))[.posixPermissions] as? Int
  }
}

@Suite struct FileWritingTests {
  private let scratch: Scratch
  private let data = Data((0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })

  init() throws { scratch = try Scratch() }

  @Test func writesANewFileWithOrdinaryPermissions() throws {
    try data.writeBesideThenRename(to: scratch.file("a b%20ü.bin"))
    #expect(try Data(contentsOf: scratch.file("a b%20ü.bin")) == data)
    #expect(try scratch.names == ["a b%20ü.bin"])
    // The reference is what the system gives to any new file under the process's mask.
    #expect(FileManager.default.createFile(atPath: scratch.file("other").path(percentEncoded: false), contents: nil))
    #expect(try scratch.permissions("a b%20ü.bin") == scratch.permissions("other"))
  }

  @Test func writesNothingAtAllAsAnEmptyFile() throws {
    try Data().writeBesideThenRename(to: scratch.file("empty"))
    #expect(try Data(contentsOf: scratch.file("empty")).isEmpty)
  }

  @Test func replacesAFileAndKeepsItsPermissions() throws {
    try Data("old".utf8).write(to: scratch.file("x"))
    try FileManager.default.setAttributes([.posixPermissions: 0o640], ofItemAtPath: scratch.file("x").path(percentEncoded: false))
    try data.writeBesideThenRename(to: scratch.file("x"))
    #expect(try Data(contentsOf: scratch.file("x")) == data)
    #expect(try scratch.permissions("x") == 0o640)
    #expect(try scratch.names == ["x"])
  }

  @Test(arguments: [true, false]) func followsLinks(targetExists: Bool) throws {
    let files = FileManager.default
    try files.createDirectory(at: scratch.file("sub"), withIntermediateDirectories: true)
    if targetExists { try Data("old".utf8).write(to: scratch.file("sub/target")) }
    try files.createSymbolicLink(atPath: scratch.file("sub/second").path(percentEncoded: false), withDestinationPath: "target")
    try files.createSymbolicLink(atPath: scratch.file("first").path(percentEncoded: false), withDestinationPath: "sub/second")
    try data.writeBesideThenRename(to: scratch.file("first"))
    #expect(try Data(contentsOf: scratch.file("sub/target")) == data)
    #expect(try files.destinationOfSymbolicLink(atPath: scratch.file("first").path(percentEncoded: false)) == "sub/second")
    #expect(try files.contentsOfDirectory(atPath: scratch.file("sub").path(percentEncoded: false)).sorted() == ["second", "target"])
  }

  @Test func linksThatGoRoundAreAnError() throws {
    try FileManager.default.createSymbolicLink(atPath: scratch.file("loop").path(percentEncoded: false), withDestinationPath: "loop")
    #expect(throws: FileWriteError.self) { try data.writeBesideThenRename(to: scratch.file("loop")) }
    #expect(try scratch.names == ["loop"])
  }

  @Test func namesAMissingFolder() throws {
    let folder = scratch.file("none").path(percentEncoded: false)
    #expect(throws: FileWriteError.missingFolder(path: folder + "/x.png", folder: folder)) {
      try data.writeBesideThenRename(to: scratch.file("none/x.png"))
    }
  }

  @Test func refusesAFolder() throws {
    #expect(throws: FileWriteError.isFolder(path: scratch.url.path(percentEncoded: false))) {
      try data.writeBesideThenRename(to: scratch.url)
    }
  }

  @Test func refusesWhatIsNoPath() throws {
    let remote = try #require(URL(string: "https://example.com/x.png"))
    #expect(throws: FileWriteError.notAPath("https://example.com/x.png")) { try data.writeBesideThenRename(to: remote) }
  }

  @Test(.enabled(if: getuid() != 0, "root may write everywhere")) func respectsWriteProtection() throws {
    let path = scratch.file("x").path(percentEncoded: false)
    try Data("old".utf8).write(to: scratch.file("x"))
    try FileManager.default.setAttributes([.posixPermissions: 0o444], ofItemAtPath: path)
    #expect(throws: FileWriteError.notPermitted(path: path)) { try data.writeBesideThenRename(to: scratch.file("x")) }
    #expect(try Data(contentsOf: scratch.file("x")) == Data("old".utf8))
  }

  @Test func aNameTooLongLeavesNothing() throws {
    let name = String(repeating: "x", count: 300)
    #expect(throws: FileWriteError.failed(path: scratch.file(name).path(percentEncoded: false), reason: "File name too long")) {
      try data.writeBesideThenRename(to: scratch.file(name))
    }
    #expect(try scratch.names.isEmpty)
  }

  #if os(Linux)
    @Test func reportsAFullDiskAndLeavesTheDevice() throws {
      #expect(throws: FileWriteError.diskFull(path: "/dev/full")) { try data.writeBesideThenRename(to: URL(filePath: "/dev/full")) }
      let type = try FileManager.default.attributesOfItem(atPath: "/dev/full")[.type] as? FileAttributeType
      #expect(type == .typeCharacterSpecial)
    }

    @Test func aFolderThatTakesNoFilesIsNotCalledMissing() throws {
      #expect(throws: FileWriteError.failed(path: "/proc/none.png", reason: "No such file or directory")) {
        try data.writeBesideThenRename(to: URL(filePath: "/proc/none.png"))
      }
    }
  #endif

  @Test func writesIntoAPipe() async throws {
    let pipe = scratch.file("pipe")
    #expect(mkfifo(pipe.path(percentEncoded: false), 0o600) == 0)
    let reader = Task.detached { try FileHandle(forReadingFrom: pipe).readToEnd() }
    try data.writeBesideThenRename(to: pipe)
    let read = try await reader.value
    #expect(read == data)
    #expect(try scratch.names == ["pipe"])
  }

  @Test func writersAtOnceLeaveOneWholeFile() async throws {
    let url = scratch.file("x")
    try await withThrowingTaskGroup(of: Void.self) { group in
      for value in UInt8(0)..<8 {
        group.addTask { try Data(repeating: value, count: 1_000_000).writeBesideThenRename(to: url) }
      }
      try await group.waitForAll()
    }
    let result = try Data(contentsOf: url)
    #expect(result == Data(repeating: try #require(result.first), count: 1_000_000))
    #expect(try scratch.names == ["x"])
  }

  // MARK: piece by piece, and folders

  @Test func writesPieces() throws {
    try FileWriting.writeBesideThenRename(to: scratch.file("x")) { append in
      for piece in 0..<100 { try append(data[piece * 1000..<(piece + 1) * 1000]) }
      #expect(try scratch.names.count == 1 && scratch.names != ["x"])
    }
    #expect(try Data(contentsOf: scratch.file("x")) == data)
  }

  private struct Stop: Error {}

  @Test func whatEndsInTheMiddleLeavesTheOldFile() throws {
    try Data("old".utf8).write(to: scratch.file("x"))
    #expect(throws: Stop.self) {
      try FileWriting.writeBesideThenRename(to: scratch.file("x")) { append in
        try append(data)
        throw Stop()
      }
    }
    #expect(try scratch.names == ["x"] && Data(contentsOf: scratch.file("x")) == Data("old".utf8))
  }

  @Test func makesAFolderAsAWhole() throws {
    for name in ["folder", "with slash/", "a%20ü"] {
      try FileWriting.makeFolder(at: scratch.file(name)) { folder in
        try data.writeBesideThenRename(to: folder.appending(path: "x"))
        #expect(try scratch.names.allSatisfy { $0 != name })
      }
      #expect(try Data(contentsOf: scratch.file(name).appending(path: "x")) == data)
    }
    #expect(try scratch.names == ["a%20ü", "folder", "with slash"])
  }

  @Test func aFolderThatFailsLeavesNothing() throws {
    #expect(throws: Stop.self) {
      try FileWriting.makeFolder(at: scratch.file("x")) { folder in
        try data.writeBesideThenRename(to: folder.appending(path: "a"))
        throw Stop()
      }
    }
    let path = scratch.file("x").path(percentEncoded: false)
    // Errors name the place that was asked for.
    #expect(throws: FileWriteError.missingFolder(path: path + "/none/a", folder: path + "/none")) {
      try FileWriting.makeFolder(at: scratch.file("x")) { try data.writeBesideThenRename(to: $0.appending(path: "none/a")) }
    }
    #expect(try scratch.names.isEmpty)
  }

  @Test func aFolderTakesNobodysPlace() throws {
    try data.write(to: scratch.file("x"))
    #expect(throws: FileWriteError.exists(path: scratch.file("x").path)) { try FileWriting.makeFolder(at: scratch.file("x")) { _ in } }
    #expect(throws: FileWriteError.exists(path: scratch.url.path)) { try FileWriting.makeFolder(at: scratch.url) { _ in } }
    #expect(throws: FileWriteError.self) { try FileWriting.makeFolder(at: scratch.file("none/x")) { _ in } }
    // Somebody is faster.
    #expect(throws: FileWriteError.exists(path: scratch.file("y").path)) {
      try FileWriting.makeFolder(at: scratch.file("y")) { _ in try data.write(to: scratch.file("y")) }
    }
    #expect(try scratch.names == ["x", "y"])
  }
}
