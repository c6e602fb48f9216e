import Dispatch
import EmojiModel
import LatentDiffusion
import Synchronization
import Testing

/// All of a task's work that is not the engine's on one thread: a cooperative pool of width 1.
private final class OneThread: TaskExecutor {
  private let queue = DispatchQueue(label: "one thread")

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }
}

/// Where tasks share one thread, nobody waits for a picture or a model.
@Suite(.serialized) struct CooperationTests {
  /// What tasks on one thread see of one another.
  private final class Turns: Sendable {
    private let isDone = Mutex(false)
    private let longest = Mutex(Duration.zero)

    func work(_ work: () async throws -> Void) async throws {
      defer { isDone.withLock { $0 = true } }
      try await work()
    }

    /// Takes a turn every millisecond until the work is done.
    func take() async throws {
      var last = ContinuousClock.now
      while !isDone.withLock(\.self) {
        try await Task.sleep(for: .milliseconds(1))
        let now = ContinuousClock.now
        longest.withLock { $0 = max($0, now - last) }
        last = now
      }
    }

    var longestGap: Duration { longest.withLock(\.self) }
  }

  /// The longest time between two turns of a task, while another one does something on the same thread.
  private func longestGap(during work: @escaping @Sendable () async throws -> Void) async throws -> Duration {
    let turns = Turns()
    try await withTaskExecutorPreference(OneThread()) {
      async let working: Void = turns.work(work)
      async let taking: Void = turns.take()
      _ = try await (working, taking)
    }
    return turns.longestGap
  }

  /// The pool is of one thread: what blocks it is seen.
  @Test func whatBlocksIsSeen() async throws {
    let gap = try await longestGap {
      try await Task.sleep(for: .milliseconds(20))
      let end = ContinuousClock.now + .milliseconds(300)
      while ContinuousClock.now < end {}
      try await Task.sleep(for: .milliseconds(20))
    }
    #expect(gap > .milliseconds(290), "\(gap)")
  }

  @Test func othersGoOnWhileAPictureIsDrawn() async throws {
    let model = try StableDiffusion.load(from: EmojiModel.folder())
    var request = model.request("a red apple", seed: 1)
    (request.width, request.height, request.steps) = (512, 512, 3)
    let steps = Mutex<[Duration]>([])
    let gap = try await longestGap { [request] in
      var start = ContinuousClock.now
      for try await case .step in try model.pipeline.generate(request) {
        let now = ContinuousClock.now
        steps.withLock { $0.append(now - start) }
        start = now
      }
    }
    let shortest = try #require(steps.withLock { $0.min() })
    print("The longest gap is \(gap) where a step takes \(shortest).")
    #expect(gap < shortest / 2, "\(gap) of \(shortest)")
  }

  @Test func othersGoOnWhileAModelIsLoaded() async throws {
    let folder = try EmojiModel.folder(), seconds = Mutex(Duration.zero)
    let gap = try await longestGap {
      let start = ContinuousClock.now
      for _ in 0..<10 { _ = try await StableDiffusion.loaded(from: folder, weights: .q8) }
      seconds.withLock { $0 = ContinuousClock.now - start }
    }
    let one = seconds.withLock { $0 / 10 }
    print("The longest gap is \(gap) where a model loads in \(one).")
    #expect(gap < one / 2, "\(gap) of \(one)")
  }
}
