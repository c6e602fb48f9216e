import Foundation
import Synchronization

/// Threads of the engine's own: they run whole jobs (a denoising step) and help one another with parallel loops.
///
/// A thread that runs a job and meets a loop takes chunks of it itself; idle threads take chunks too. So any number of
/// jobs shares the threads without deadlock, and never more than `threads` of them compute. Nothing here decides a
/// result but only when it comes: chunks are cut by the caller, and each writes its own part. A thread begins with the same
/// part of every loop, where it finds in its cache what it made in the loop before.
public final class ThreadPool: Sendable {
  /// Threads that may compute at once.
  public let threads: Int
  private let queue = WorkQueue()

  /// The most threads a pool starts, whatever is asked for.
  public static let maximumThreads = 1024

  /// - Parameter threads: from 1 up to `maximumThreads`; `nil` takes the machine's processors.
  public init(threads: Int? = nil) {
    self.threads = min(max(1, threads ?? ProcessInfo.processInfo.activeProcessorCount), Self.maximumThreads)
    for number in 0..<self.threads {
      let thread = Thread { [queue] in queue.serve(as: number) }
      thread.name = "LatentDiffusion \(number)"
      thread.stackSize = 4 << 20
      thread.start()
    }
  }

  deinit { queue.stop() }

  /// Runs `job` on one of the pool's threads, whose number it is told, some time later.
  func submit(_ job: @escaping @Sendable (_ thread: Int) -> Void) { queue.add(job) }

  /// Runs `body` for each index below `count`, on this thread and on idle ones, and returns when all are done or
  /// `isCancelled` said so (then some were not run).
  /// - Parameter thread: this one's number.
  func forEach(_ count: Int, on thread: Int, isCancelled: () -> Bool, _ body: (Int) -> Void) {
    guard count > 1, threads > 1 else {
      for index in 0..<count where !isCancelled() { body(index) }
      return
    }
    withoutActuallyEscaping(isCancelled) { isCancelled in
      withoutActuallyEscaping(body) { body in
        let loop = ParallelLoop(count: count, threads: threads, isCancelled: isCancelled, body: body)
        queue.add(loop)
        loop.takeChunks(as: thread)
        queue.finish(loop)
        // A helper may hold on to the loop a moment longer, but not to what must not outlive this call.
        loop.forgetWork()
      }
    }
  }
}

/// One parallel loop. It is only ever used between the start and the end of the `forEach` that made it.
private final class ParallelLoop: @unchecked Sendable {
  private var isCancelled: (() -> Bool)?
  private var body: ((Int) -> Void)?
  /// A part of the chunks for each thread.
  private let shares: ChunkShares
  /// Threads inside besides the one that made it, and `closed` where no more may join.
  private let helpers = Atomic<Int>(0)
  private static let closed = 1 << 62
  /// Helpers at once.
  private let places: Int
  /// Whether the one that made it sleeps until they have left.
  let isAwaited = Atomic<Bool>(false)

  init(count: Int, threads: Int, isCancelled: @escaping () -> Bool, body: @escaping (Int) -> Void) {
    shares = ChunkShares(count: count, shares: min(threads, count))
    self.isCancelled = isCancelled
    self.body = body
    places = min(threads, count) - 1
  }

  /// Lets a helper in, if there is a place and something to do.
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
  /// Whether somebody is inside, once it is closed.
  var hasHelpers: Bool { helpers.load(ordering: .sequentiallyConsistent) != Self.closed }

  func forgetWork() { (isCancelled, body) = (nil, nil) }

  func takeChunks(as thread: Int) {
    guard let isCancelled, let body else { return }
    while !isCancelled(), let index = shares.take(for: thread) { body(index) }
  }
}

/// The chunks of a loop, a run of them for each thread. A thread takes its own from the front, and when they are gone those of others from the
/// back, so that whose they are keeps its neighbouring ones as long as can be.
private struct ChunkShares: ~Copyable {
  private let shares: Int
  /// For each share its first chunk that is left and the end of those, half a word each; two cache lines from one to the next.
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

/// What waits for a thread: loops first, since somebody waits for them, then jobs in their order.
private final class WorkQueue: @unchecked Sendable {
  private let condition = NSCondition()
  private var loops: [ParallelLoop] = []
  private var jobs: [@Sendable (_ thread: Int) -> Void] = []
  private var stopped = false
  /// Counts additions, so that an idle thread can look for work without the lock.
  private let additions = Atomic<Int>(0)

  /// Looks before going to sleep, some 50 µs: the next loop usually follows within a few.
  private static let looks = 4000
  /// Looks between those that offer the processor to threads which have something to do.
  private static let looksBetweenOffers = 64

  func add(_ job: @escaping @Sendable (_ thread: Int) -> Void) {
    condition.lock()
    jobs.append(job)
    announce()
  }

  func add(_ loop: ParallelLoop) {
    condition.lock()
    // Those that are over leave the list here, so that their ends need no lock.
    loops.removeAll { $0.isClosed }
    loops.append(loop)
    announce()
  }

  func stop() {
    condition.lock()
    stopped = true
    announce()
  }

  /// Ends what `add` and `stop` begin. The lock is free before the looking threads hear of it: they would meet at it, and sleep.
  private func announce() {
    condition.unlock()
    additions.wrappingAdd(1, ordering: .releasing)
    condition.broadcast()
  }

  /// Closes a loop to newcomers and waits for those inside.
  func finish(_ loop: ParallelLoop) {
    loop.close()
    for look in 0..<Self.looks where loop.hasHelpers { wait(look) }
    guard loop.hasHelpers else { return }
    condition.lock()
    loop.isAwaited.store(true, ordering: .sequentiallyConsistent)
    while loop.hasHelpers { condition.wait() }
    condition.unlock()
  }

  /// What a thread of the pool does until the pool ends.
  /// - Parameter thread: its number.
  func serve(as thread: Int) {
    // Looks since there was something to do: who only ever comes too late sleeps too.
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
        // Where what was added is done already, the next loop is worth another look.
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
