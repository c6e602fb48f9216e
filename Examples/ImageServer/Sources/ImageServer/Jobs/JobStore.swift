import Foundation
import LatentDiffusion

/// The folder in which jobs, what they need, and pictures are kept, so that they outlive the program.
///
///     jobs/ID.json   inputs/ID-image, inputs/ID-mask   checkpoints/ID.safetensors   pictures/ID-1.png
///
/// Every file is written beside and then renamed. Names come from ids that this program made, never from clients.
struct JobStore: Sendable {
  let folder: URL
  /// Held as long as the program runs, so that no other one takes the folder.
  private let lock: FolderLock

  /// - Throws: `ServerSetupError`.
  init(_ folder: URL) throws(ServerSetupError) {
    self.folder = folder
    do {
      for name in ["jobs", "inputs", "checkpoints", "pictures"] {
        try FileManager.default.createDirectory(at: folder.appending(path: name), withIntermediateDirectories: true)
      }
    } catch {
      throw .unusableState(folder.path(percentEncoded: false), reason: error.localizedDescription)
    }
    lock = try FolderLock(folder)
  }

  func picture(_ name: String) -> URL { folder.appending(path: "pictures").appending(path: name) }
  func checkpoint(_ id: String) -> URL { folder.appending(path: "checkpoints").appending(path: "\(id).safetensors") }
  private func record(_ id: String) -> URL { folder.appending(path: "jobs").appending(path: "\(id).json") }
  private func input(_ id: String, _ name: String) -> URL { folder.appending(path: "inputs").appending(path: "\(id)-\(name)") }

  /// - Throws: what writing throws.
  func write(_ job: Job) throws { try JSONEncoder().encode(job).write(to: record(job.id), options: .atomic) }

  /// - Throws: what writing throws; nothing is left then.
  func write(_ files: RequestFiles, of id: String) throws {
    do {
      try files.image?.write(to: input(id, "image"), options: .atomic)
      try files.mask?.write(to: input(id, "mask"), options: .atomic)
    } catch {
      forgetWork(of: id)
      throw error
    }
  }

  /// - Throws: what reading throws.
  func files(of job: Job) throws -> RequestFiles {
    RequestFiles(
      image: job.request.hasImage ? try Data(contentsOf: input(job.id, "image")) : nil,
      mask: job.request.hasMask ? try Data(contentsOf: input(job.id, "mask")) : nil)
  }

  /// Removes what a job needed until it ended.
  func forgetWork(of id: String) {
    for url in [input(id, "image"), input(id, "mask"), checkpoint(id)] { try? FileManager.default.removeItem(at: url) }
  }

  func forget(_ job: Job) {
    forgetWork(of: job.id)
    for kept in job.pictures { forget(picture: kept.name) }
    try? FileManager.default.removeItem(at: record(job.id))
  }

  func forget(picture name: String) { try? FileManager.default.removeItem(at: picture(name)) }

  /// All jobs that are remembered, the oldest first, and the files of those that cannot be read. What a program that was killed left of jobs that have no file
  /// is removed, and nothing that this program did not name.
  func jobs() -> (jobs: [Job], unreadable: [String]) {
    let decoder = JSONDecoder(), records = names(in: "jobs").filter { $0.hasSuffix(".json") }
    let jobs = records.compactMap { name -> Job? in
      guard let data = try? Data(contentsOf: folder.appending(path: "jobs").appending(path: name)),
        let job = try? decoder.decode(Job.self, from: data), "\(job.id).json" == name
      else { return nil }
      return job
    }
    let known = Set(records.map { String($0.dropLast(5)) })
    for place in ["inputs", "checkpoints", "pictures"] {
      for name in names(in: place) {
        guard let id = Job.id(ofFile: name), !known.contains(id) else { continue }
        try? FileManager.default.removeItem(at: folder.appending(path: place).appending(path: name))
      }
    }
    let read = Set(jobs.map { "\($0.id).json" })
    return (jobs.sorted { $0.id < $1.id }, records.filter { !read.contains($0) }.sorted())
  }

  private func names(in place: String) -> [String] {
    (try? FileManager.default.contentsOfDirectory(atPath: folder.appending(path: place).path(percentEncoded: false))) ?? []
  }
}

/// A lock on a folder that ends with the process, however that ends.
private final class FolderLock: Sendable {
  private let file: FileHandle

  /// - Throws: `ServerSetupError`.
  init(_ folder: URL) throws(ServerSetupError) {
    let url = folder.appending(path: "lock"), path = folder.path(percentEncoded: false)
    if !FileManager.default.fileExists(atPath: url.path(percentEncoded: false)) { try? Data().write(to: url) }
    guard let file = try? FileHandle(forUpdating: url) else { throw .unusableState(path, reason: "it cannot be written") }
    guard flock(file.fileDescriptor, LOCK_EX | LOCK_NB) == 0 else { throw .unusableState(path, reason: "another server uses it") }
    self.file = file
  }
}
