import Foundation
import Synchronization

/// The engine's threads. They run whole jobs (a denoising step) and share the work of parallel loops.
///
/// When a job reaches a loop, its thread takes chunks of the loop, and idle threads take chunks too. So any number of jobs
/// shares the threads without deadlock, and never more than `threads` of them compute. The pool decides only when results come,
/// not what they are: the caller cuts the chunks, and each chunk writes its own part. A thread begins with the same part of
/// every loop, because its cache holds what it wrote there in the loop before.
public final class ThreadPool: Sendable {
  /// Threads that may compute at the same time.
  public let threads: Int
  private let queue = WorkQueue()

  /// The most threads that a pool starts, even if more are requested.
  public static let maximumThreads = 1024

  /// The number of threads, the last ones, that wait after each chunk as long as it took.
  private let slowed: Int

  /// - Parameters:
  ///   - threads: from 1 up to `maximumThreads`; `nil` means the number of the machine's processors.
  ///   - slowed: so many of them, the last ones, take twice the time for their chunks of loops, as slower cores do: for measuring how loops share
  ///     their work between unequal processors.
  public init(threads: Int? = nil, slowed: Int = 0) {
    self.threads = min(max(1, threads ?? ProcessInfo.processInfo.activeProcessorCount), Self.maximumThreads)
    self.slowed = slowed
    for number in 0..<self.threads {
      let thread = Thread { [queue] in queue.serve(as: number) }
      thread.name = "LatentDiffusion \(number)"
      thread.stackSize = 4 << 20
      thread.start()
    }
  }

  deinit { queue.stop() }

  /// Runs `job` later on one of the pool's threads, and passes it the thread's number.
  func submit(_ job: @escaping @Sendable (_ thread: Int) -> Void) { queue.add(job) }

  /// Runs `body` for each index below `count`, on this thread and on idle ones. Returns when all are done or
  /// `isCancelled` has returned true (then some were not run).
  /// - Parameter thread: the number of this thread.
  func forEach(_ count: Int, on thread: Int, isCancelled: () -> Bool, _ body: (Int) -> Void) {
    guard count > 1, threads > 1 else {
      for index in 0..<count where !isCancelled() { body(index) }
      return
    }
    withoutActuallyEscaping(isCancelled) { isCancelled in
      withoutActuallyEscaping(body) { body in
        let loop = ParallelLoop(count: count, threads: threads, slowed: slowed, isCancelled: isCancelled, body: body)
        queue.add(loop)
        loop.takeChunks(as: thread)
        queue.finish(loop)
        // A helper may keep the loop for a moment longer, but it must not keep closures that are valid only during this call.
        loop.forgetWork()
      }
    }
  }
}

/// One parallel loop. It is used only during the `forEach` that made it.
private final class ParallelLoop: @unchecked Sendable {
  private var isCancelled: (() -> Bool)?
  private var body: ((Int) -> Void)?
  /// Each thread's part of the chunks.
  private let shares: ChunkShares
  /// The number of helpers inside, plus `closed` when no more may join.
  private let helpers = Atomic<Int>(0)
  private static let closed = 1 << 62
  /// The most helpers at the same time.
  private let places: Int
  /// Whether the thread that made the loop sleeps until all helpers have left.
  let isAwaited = Atomic<Bool>(false)

  /// Threads from this number on are slowed.
  private let firstSlowed: Int

  init(count: Int, threads: Int, slowed: Int, isCancelled: @escaping () -> Bool, body: @escaping (Int) -> Void) {
    firstSlowed = threads - slowed
    shares = ChunkShares(count: count, shares: min(threads, count))
    self.isCancelled = isCancelled
    self.body = body
    places = min(threads, count) - 1
  }

  /// Adds a helper, if there is a place for it and work left.
  func join() -> Bool {
    var inside = helpers.load(ordering: .relaxed)
    while inside < places, !shares.isEmpty {
      let (isIn, found) = helpers.weakCompareExchange(expected: inside, desired: inside + 1, ordering: .acquiring)
      if isIn { return true }
      inside = found
    }
    return false
  }

  func leave() { helpers.wrappingSubtract(1, ordering: .sequentiallyConsistent) }

  func close() { helpers.wrappingAdd(Self.closed, ordering: .sequentiallyConsistent) }

  var isClosed: Bool { helpers.load(ordering: .relaxed) >= Self.closed }
  /// Whether helpers are still inside of a closed loop.
  var hasHelpers: Bool { helpers.load(ordering: .sequentiallyConsistent) != Self.closed }

  func forgetWork() { (isCancelled, body) = (nil, nil) }

  func takeChunks(as thread: Int) {
    guard let isCancelled, let body else { return }
    guard thread >= firstSlowed else {
      while !isCancelled(), let index = shares.take(for: thread) { body(index) }
      return
    }
    while !isCancelled(), let index = shares.take(for: thread) {
      let start = ContinuousClock.now
      body(index)
      let end = ContinuousClock.now, wanted = end + (end - start)
      while ContinuousClock.now < wanted, !isCancelled() { kernelPause() }
    }
  }
}

/// The chunks of a loop, with a run of them for each thread. A thread takes its own chunks from the front. When these are gone it takes other
/// threads' chunks from the back, so that their owner keeps neighbouring chunks as long as possible.
private struct ChunkShares: ~Copyable {
  private let shares: Int
  /// For each share its first remaining chunk and its end, in the halves of a 64-bit word. Shares are two cache lines apart.
  private let bounds: UnsafeMutablePointer<Atomic<UInt64>>
  private static let stride = 16

  init(count: Int, shares: Int) {
    precondition(count < 1 << 32, "A loop of \(count) chunks.")
    self.shares = shares
    bounds = .allocate(capacity: shares * Self.stride)
    for share in 0..<shares {
      let first = UInt64(count * share / shares), end = UInt64(count * (share + 1) / shares)
      (bounds + share * Self.stride).initialize(to: Atomic((first << 32) | end))
    }
  }

  deinit { bounds.deallocate() }

  private static func parts(_ share: UInt64) -> (first: UInt64, end: UInt64) { (share >> 32, share & 0xFFFF_FFFF) }

  var isEmpty: Bool {
    for share in 0..<shares {
      let left = Self.parts(bounds[share * Self.stride].load(ordering: .relaxed))
      if left.first < left.end { return false }
    }
    return true
  }

  func take(for thread: Int) -> Int? {
    for distance in 0..<shares {
      let isOwn = distance == 0, share = bounds + (thread + distance) % shares * Self.stride
      var found = share.pointee.load(ordering: .relaxed)
      while case let left = Self.parts(found), left.first < left.end {
        let rest = isOwn ? found + (1 << 32) : found - 1
        let (isTaken, now) = share.pointee.weakCompareExchange(expected: found, desired: rest, ordering: .relaxed)
        if isTaken { return Int(isOwn ? left.first : left.end - 1) }
        found = now
      }
    }
    return nil
  }
}

/// The work that waits for a thread: loops first, because another thread waits for them, then jobs in their order.
private final class WorkQueue: @unchecked Sendable {
  private let condition = NSCondition()
  private var loops: [ParallelLoop] = []
  private var jobs: [@Sendable (_ thread: Int) -> Void] = []
  private var stopped = false
  /// Counts additions, so that an idle thread can poll for work without the lock.
  private let additions = Atomic<Int>(0)

  /// Polls before a thread goes to sleep, about 50 µs: the next loop usually follows within a few.
  private static let looks = 4000
  /// Polls between two calls of `sched_yield`, which lets other threads use the processor.
  private static let looksBetweenOffers = 64

  func add(_ job: @escaping @Sendable (_ thread: Int) -> Void) {
    condition.lock()
    jobs.append(job)
    announce()
  }

  func add(_ loop: ParallelLoop) {
    condition.lock()
    // Closed loops are removed here, so that finishing a loop needs no lock.
    loops.removeAll { $0.isClosed }
    loops.append(loop)
    announce()
  }

  func stop() {
    condition.lock()
    stopped = true
    announce()
  }

  /// Ends `add` and `stop`. It unlocks before it signals, because polling threads would otherwise find the lock taken and sleep.
  private func announce() {
    condition.unlock()
    additions.wrappingAdd(1, ordering: .releasing)
    condition.broadcast()
  }

  /// Closes a loop to new helpers and waits for those inside.
  func finish(_ loop: ParallelLoop) {
    loop.close()
    for look in 0..<Self.looks where loop.hasHelpers { wait(look) }
    guard loop.hasHelpers else { return }
    condition.lock()
    loop.isAwaited.store(true, ordering: .sequentiallyConsistent)
    while loop.hasHelpers { condition.wait() }
    condition.unlock()
  }

  /// The body of a pool's thread, which returns when the pool stops.
  /// - Parameter thread: its number.
  func serve(as thread: Int) {
    // Polls since this thread last had work. A thread that always comes too late for work sleeps, too.
    var seen = 0, look = 0
    while true {
      while look < Self.looks, additions.load(ordering: .acquiring) == seen {
        wait(look)
        look += 1
      }
      condition.lock()
      let isNews = additions.load(ordering: .acquiring) != seen
      seen = additions.load(ordering: .acquiring)
      if let loop = loops.first(where: { $0.join() }) {
        condition.unlock()
        loop.takeChunks(as: thread)
        look = 0
        loop.leave()
        if loop.isAwaited.load(ordering: .sequentiallyConsistent) {
          condition.lock()
          condition.broadcast()
          condition.unlock()
        }
      } else if !jobs.isEmpty {
        let job = jobs.removeFirst()
        condition.unlock()
        job(thread)
        look = 0
      } else if stopped {
        condition.unlock()
        return
      } else {
        // If other threads have already done the new work, this thread polls on for the next loop.
        if !isNews {
          condition.wait()
          look = 0
        }
        condition.unlock()
      }
    }
  }

  @inline(__always) private func wait(_ look: Int) {
    if look % Self.looksBetweenOffers == Self.looksBetweenOffers - 1 { sched_yield() } else { kernelPause() }
  }
}
