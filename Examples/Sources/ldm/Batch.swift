import ArgumentParser
import Foundation
import LatentDiffusion

struct Batch: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "batch", abstract: "Draws everything that a file of jobs asks for.",
    discussion: """
      Each line of the file is a JSON object with the options of a command: {"prompt": "a red apple", "seed": 1}, and with "command": "img2img" those of \
      another than txt2img. "id" names a job; without it, the number of its line does. {a|b} in a prompt makes a job of each. Each job that ends becomes one \
      line of results.jsonl in the folder.

      The same command goes on where it was stopped, in the middle of a picture, too. Several processes can share a folder, also on several machines: no \
      job is done twice. Job arrays of Slurm and indexed jobs of Kubernetes share the jobs out by themselves.

      Example: ldm batch jobs.jsonl --output pictures -- --model models/sd15 --steps 25
      """)

  @Argument(help: "The file of jobs; - reads them from standard input.")
  var jobs: String

  @Option(
    name: [.customShort("o"), .long], parsing: .unconditional, help: "The folder for pictures and results. It is made if there is none.")
  var output: String

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Only every N-th job, from job I on, counted from 0. Without it, as the environment of a Slurm array or of an indexed job of Kubernetes says.",
      valueName: "I/N"))
  var shard: JobShard?

  @Option(
    parsing: .unconditional,
    help: "Into how many parts jobs are shared out where the environment of Kubernetes names only the part's number.")
  var shards: Int?

  @Argument(parsing: .postTerminator, help: "Options for all jobs, after --. Those of a job count more.")
  var common: [String] = []

  func validate() throws {
    guard (1...1_000_000).contains(shards ?? 1) else { throw ValidationError("--shards must be from 1 to 1000000.") }
    guard shard == nil || shards == nil else { throw ValidationError("Give either --shard or --shards.") }
  }

  func run() async throws {
    let shard = try shard ?? JobShard(environment: ProcessInfo.processInfo.environment, of: shards)
    let all = try BatchJob.read(jobs, common: common), own = shard.map { shard in all.filter { shard.contains($0.index) } } ?? all
    let folder = URL(filePath: output, directoryHint: .isDirectory)
    do { try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true) } catch {
      throw Failure("The folder \(output) cannot be made; choose another place.")
    }
    let book = try BatchResults(in: folder), progress = Progress(keepsOutputFree: true)
    var failed = 0
    try await ModelShelf.$current.withValue(ModelShelf()) {
      var waiting = own
      while !waiting.isEmpty {
        var others: [BatchJob] = []
        for job in waiting {
          switch try await result(of: job, book, folder, progress) {
          case .taken: others.append(job)
          case .ended(let ended) where ended.status == .failed: failed += 1
          case .ended, .known: break
          }
        }
        // A process that ends without a result, because it was killed, leaves its job to the others.
        if others.count == waiting.count { try await Task.sleep(for: .seconds(1)) }
        waiting = others
      }
    }
    progress.clear()
    if failed > 0 { throw Failure("\(failed) of \(own.count) jobs failed; results.jsonl in \(output) says why.") }
  }

  private enum Outcome {
    /// Another process is at it.
    case taken
    /// It was done before.
    case known
    case ended(BatchResult)
  }

  private func result(of job: BatchJob, _ book: BatchResults, _ folder: URL, _ progress: Progress) async throws -> Outcome {
    try book.refresh()
    if book.isDone(job, in: folder) { return .known }
    guard try book.claim(job.index) else { return .taken }
    defer { book.release(job.index) }
    // It may have ended between the two.
    try book.refresh()
    if book.isDone(job, in: folder) { return .known }
    let checkpoint = folder.appending(path: ".\(job.id).\(job.digest).checkpoint").path(percentEncoded: false)
    var ended = BatchResult(job: job.id, digest: job.digest, status: .done)
    do {
      let run = try CommandRun(job.words(in: folder, checkpoint: checkpoint))
      let (files, warnings) = try await run.drawn { progress.job(job.id, done: $0, of: $1) }
      ended.add(files, warnings, in: folder)
    } catch let error as CancellationError {
      throw error
    } catch {
      (ended.status, ended.error) = (.failed, LDM.message(for: error))
    }
    try Signals.whole { try book.add(ended) }
    print(try ended.line())
    return .ended(ended)
  }
}

/// A part of the jobs.
struct JobShard: ExpressibleByArgument {
  let index, count: Int

  init?(argument: String) {
    let parts = argument.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
    guard parts.count == 2, let index = parts[0], let count = parts[1], count > 0, count <= 1_000_000, (0..<count).contains(index) else {
      return nil
    }
    (self.index, self.count) = (index, count)
  }

  /// What the environment of a task of a Slurm array, or of a pod of an indexed Job, says. Nil outside of them.
  /// - Throws: a `Failure` where nothing says how many parts there are.
  init?(environment: [String: String], of shards: Int?) throws {
    func number(_ name: String) -> Int? { environment[name].flatMap(Int.init) }
    if let task = number("SLURM_ARRAY_TASK_ID"), let count = shards ?? number("SLURM_ARRAY_TASK_COUNT"), count > 0 {
      // Arrays may begin at any number, and go on in steps.
      let step = max(1, number("SLURM_ARRAY_TASK_STEP") ?? 1), place = (task - min(task, number("SLURM_ARRAY_TASK_MIN") ?? 0)) / step
      (index, self.count) = (place % count, count)
    } else if let completion = number("JOB_COMPLETION_INDEX"), completion >= 0 {
      guard let count = shards else {
        throw Failure(
          "JOB_COMPLETION_INDEX says which part of the jobs this is, but not of how many; add --shards with the completions of the Job.")
      }
      (index, self.count) = (completion % count, count)
    } else if let shards {
      throw Failure("--shards \(shards) goes with a Slurm array or an indexed Job of Kubernetes; elsewhere give --shard I/\(shards).")
    } else {
      return nil
    }
  }

  func contains(_ job: Int) -> Bool { job % count == index }
}
