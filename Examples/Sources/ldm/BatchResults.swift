import Foundation
import Synchronization

/// A line of `results.jsonl`.
struct BatchResult: Codable, Sendable {
  enum Status: String, Codable, Sendable { case done, failed }

  let job: String
  /// Of what was asked for.
  let digest: String
  var status: Status
  /// In the folder.
  var files: [String]?
  var width: Int?
  var height: Int?
  var frames: Int?
  var seed: UInt64?
  var seconds: Double?
  var warnings: [String]?
  var error: String?

  init(job: String, digest: String, status: Status) { (self.job, self.digest, self.status) = (job, digest, status) }

  mutating func add(_ drawn: DrawnFiles, _ told: [String], in folder: URL) {
    files = drawn.files.map { URL(filePath: $0).lastPathComponent }
    (width, height, frames, seed, seconds) = (drawn.width, drawn.height, drawn.frames, drawn.seed, drawn.seconds)
    warnings = told.isEmpty ? nil : told
  }

  func line() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }
}

/// What is known of the jobs of a folder, and who is at which. Processes that share the folder agree by locks on bytes of one file, which end with the process
/// that holds them, also on file systems of a network.
final class BatchResults: Sendable {
  private let results: URL
  private let locks: Int32
  private struct State {
    /// How far the file was read.
    var read: UInt64 = 0
    var known: [String: BatchResult] = [:]
    /// Jobs that have failed since this process began.
    var failedNow: Set<String> = []
    var hasBegun = false
  }
  private let state = Mutex(State())
  /// The byte whose lock is for adding a line.
  private static let adding = 1 << 40

  /// - Throws: a `Failure` where the folder cannot be written to.
  init(in folder: URL) throws {
    results = folder.appending(path: "results.jsonl")
    locks = open(folder.appending(path: ".locks").path(percentEncoded: false), O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
    guard locks >= 0 else { throw Failure("\(folder.relativePath) cannot be written to; choose another place.") }
    try refresh()
    state.withLock { $0.hasBegun = true }
  }

  deinit { close(locks) }

  /// Reads what was added meanwhile. A line that is not whole yet, or never will be, is left out.
  func refresh() throws {
    guard let file = try? FileHandle(forReadingFrom: results) else { return }
    defer { try? file.close() }
    try state.withLock { state in
      try file.seek(toOffset: state.read)
      let data = try file.readToEnd() ?? Data()
      guard let end = data.lastIndex(of: UInt8(ascii: "\n")) else { return }
      state.read += UInt64(end - data.startIndex + 1)
      for line in data[...end].split(separator: UInt8(ascii: "\n")) {
        guard let result = try? JSONDecoder().decode(BatchResult.self, from: Data(line)) else { continue }
        state.known[result.job] = result
        if state.hasBegun, result.status == .failed { state.failedNow.insert(result.job) }
      }
    }
  }

  /// Whether nothing is left to do of a job: its files are there, or it has failed while this process was running.
  func isDone(_ job: BatchJob, in folder: URL) -> Bool {
    let (known, hasFailed) = state.withLock { ($0.known[job.id], $0.failedNow.contains(job.id)) }
    guard let known, known.digest == job.digest else { return false }
    guard known.status == .done else { return hasFailed }
    return (known.files ?? []).allSatisfy { FileManager.default.fileExists(atPath: folder.appending(path: $0).path(percentEncoded: false)) }
  }

  /// Takes a job; false where another process has it.
  /// - Throws: a `Failure` on file systems without locks.
  func claim(_ job: Int) throws -> Bool {
    if lock(job, F_WRLCK) { return true }
    guard [EACCES, EAGAIN].contains(errno) else {
      throw Failure("The file system of \(results.deletingLastPathComponent().relativePath) has no locks.")
    }
    return false
  }

  func release(_ job: Int) { _ = lock(job, F_UNLCK) }

  /// Adds a line as a whole.
  /// - Throws: a `Failure` where it cannot be written.
  func add(_ result: BatchResult) throws {
    guard lock(Self.adding, F_WRLCK, waits: true) else { throw Failure("\(results.lastPathComponent) cannot be locked.") }
    defer { release(Self.adding) }
    let path = results.path(percentEncoded: false), file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o666)
    guard file >= 0 else { throw Failure("\(path) cannot be written.") }
    defer { close(file) }
    // A process that was killed may have left half a line.
    var last = UInt8(ascii: "\n")
    let end = lseek(file, 0, SEEK_END)
    if end > 0 { _ = pread(file, &last, 1, end - 1) }
    let line = Array(((last == UInt8(ascii: "\n") ? "" : "\n") + (try result.line()) + "\n").utf8)
    guard write(file, line, line.count) == line.count, fsync(file) == 0 else {
      throw Failure("\(path) cannot be written; its disk may be full.")
    }
  }

  private func lock(_ byte: Int, _ type: Int32, waits: Bool = false) -> Bool {
    var request = flock()
    (request.l_type, request.l_whence, request.l_start, request.l_len) = (Int16(type), Int16(SEEK_SET), off_t(byte), 1)
    return fcntl(locks, waits ? F_SETLKW : F_SETLK, &request) == 0
  }
}
