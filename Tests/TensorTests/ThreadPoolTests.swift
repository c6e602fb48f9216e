import Foundation
import Synchronization
import Tensor
import LatentDiffusionTestSupport
import Testing

/// How often each index of a loop was run.
private final class Tally: Sendable {
  private let counts: Mutex<[Int]>

  init(_ count: Int) { counts = Mutex([Int](repeating: 0, count: count)) }

  func note(_ index: Int) { counts.withLock { $0[index] += 1 } }

  func expectEach(_ times: Int = 1, _ name: String = "", sourceLocation: SourceLocation = #_sourceLocation) {
    let wrong = counts.withLock { counts in counts.indices.filter { counts[$0] != times }.map { "\($0): \(counts[$0])" } }
    #expect(wrong.isEmpty, "\(name): run \(times) times expected, but \(wrong.prefix(5))", sourceLocation: sourceLocation)
  }
}

/// How many are inside at once.
private final class Gate: Sendable {
  private let inside = Mutex((now: 0, most: 0))
  var most: Int { inside.withLock { $0.most } }

  func enter() { inside.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1)) } }
  func leave() { inside.withLock { $0.now -= 1 } }
}

/// A pool runs each index of each loop once, whoever asks and however loops lie in one another, and comes to an end.
@Suite(.timeLimit(.minutes(2))) struct ThreadPoolTests {
  @Test(arguments: [1, 2, 3, 8]) func eachIndexOnce(threads: Int) throws {
    let context = ExecutionContext(threads: threads)
    #expect(context.threads == threads)
    for count in [0, 1, 2, 3, 7, 100, 10_000] {
      let tally = Tally(count)
      try context.parallel(count) { tally.note($0) }
      tally.expectEach(1, "\(count) indices")
    }
  }

  @Test(arguments: [1, 2, 3, 8]) func loopsInLoops(threads: Int) throws {
    let context = ExecutionContext(threads: threads), tally = Tally(9 * 11 * 13)
    try context.parallel(9) { i in
      _ = try? context.parallel(11) { j in
        _ = try? context.parallel(13) { tally.note((i * 11 + j) * 13 + $0) }
      }
    }
    tally.expectEach()
  }

  @Test(arguments: [1, 2, 3]) func manySmallLoops(threads: Int) async throws {
    let tally = Tally(5)
    try await ExecutionContext(threads: threads).run { context in
      for _ in 0..<20_000 { try context.parallel(5) { tally.note($0) } }
    }
    tally.expectEach(20_000)
  }

  /// Loops of uneven lengths, so that some threads always come late.
  @Test(arguments: [2, 5]) func unevenLoops(threads: Int) async throws {
    let tally = Tally(40)
    try await ExecutionContext(threads: threads).run { context in
      for _ in 0..<50 {
        try context.parallel(40) { index in
          if index % 13 == 0 { Thread.sleep(forTimeInterval: 0.001) }
          tally.note(index)
        }
      }
    }
    tally.expectEach(50)
  }

  /// A slowed thread does its chunks once, as the others do, and fewer of them: it works at half of their speed.
  @Test func slowedThreads() async throws {
    let tally = Tally(200), byThread = Mutex([ObjectIdentifier: Int]())
    try await ExecutionContext(pool: ThreadPool(threads: 2, slowed: 1)).run { context in
      for _ in 0..<5 {
        try context.parallel(200) { index in
          let end = ContinuousClock.now + .microseconds(200)
          while ContinuousClock.now < end {}
          tally.note(index)
          byThread.withLock { $0[ObjectIdentifier(Thread.current), default: 0] += 1 }
        }
      }
    }
    tally.expectEach(5)
    #expect(byThread.withLock { $0.values.reduce(0, +) } == 1000)
  }

  @Test func cacheSizes() {
    #expect(CacheSizes.bytes("512K") == 524_288 && CacheSizes.bytes("32M") == 32 << 20 && CacheSizes.bytes("49152") == 49_152)
    for wrong in ["", "K", "0K", "-3K", "12X", "99999999999999999999K"] { #expect(CacheSizes.bytes(wrong) == nil, "\(wrong)") }
    #expect(CacheSizes.count("0-7,64-71") == 16 && CacheSizes.count("3") == 1 && CacheSizes.count("0,2,4-5") == 4)
    for wrong in ["", "-", "7-3", "x"] { #expect(CacheSizes.count(wrong) == 0, "\(wrong)") }
    let machine = CacheSizes.machine
    #expect(machine.secondLevel >= 64 << 10 && machine.lastLevel >= 256 << 10 && machine.lastLevel(for: 1) == machine.lastLevel)
  }

  /// More jobs than threads share them, and never more than `threads` indices are being run.
  @Test(arguments: [1, 2, 3]) func jobsAtOnce(threads: Int) async throws {
    let context = ExecutionContext(threads: threads)
    let gate = Gate()
    let sums = try await withThrowingTaskGroup(of: Int.self) { group in
      for job in 0..<8 {
        group.addTask {
          try await context.run { context in
            let sum = Mutex(0)
            for _ in 0..<100 {
              try context.parallel(6) { index in
                gate.enter()
                for _ in 0..<100 { _ = sum.withLock { $0 } }
                sum.withLock { $0 += job * index }
                gate.leave()
              }
            }
            return sum.withLock { $0 }
          }
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(sums.sorted() == (0..<8).map { $0 * 1500 })
    #expect(gate.most <= threads)
  }

  /// Threads that are not the pool's bring loops, all at once and beside jobs.
  @Test(arguments: [1, 2, 3]) func callersFromOutside(threads: Int) async throws {
    let context = ExecutionContext(threads: threads), tally = Tally(4 * 50)
    async let inside: Void = context.run { context in
      for _ in 0..<500 { try context.parallel(3) { _ in } }
    }
    await withCheckedContinuation { continuation in
      let left = Mutex(4)
      for caller in 0..<4 {
        let thread = Thread {
          for _ in 0..<200 {
            #expect(throws: Never.self) { try context.parallel(50) { tally.note(caller * 50 + $0) } }
          }
          if left.withLock({
            $0 -= 1; return $0 == 0
          }) {
            continuation.resume()
          }
        }
        thread.start()
      }
    }
    try await inside
    tally.expectEach(200)
  }

  /// Jobs that come and go on pools that come and go, whose loops hold loops; some are cancelled.
  @Test func stress() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for job in 0..<60 {
        group.addTask {
          let context = ExecutionContext(threads: job % 4 + 1)
          try await withThrowingTaskGroup(of: Void.self) { inner in
            for part in 0..<4 {
              inner.addTask {
                let tally = Tally(60)
                do {
                  try await context.run { context in
                    try context.parallel(6) { i in
                      if part == 3 && i == 2 { context.cancel() }
                      _ = try? context.parallel(10) { tally.note(i * 10 + $0) }
                    }
                  }
                  if part < 3 { tally.expectEach() }
                  #expect(part < 3, "a cancelled job ended as if nothing had been")
                } catch is CancellationError {
                  #expect(part == 3)
                }
              }
            }
            try await inner.waitForAll()
          }
        }
      }
      try await group.waitForAll()
    }
  }

  @Test func cancellationEndsALoop() throws {
    for threads in [1, 2, 3] {
      let context = ExecutionContext(threads: threads), done = Mutex(0)
      #expect(throws: CancellationError.self) {
        try context.parallel(1_000_000) { index in
          if index == 100 { context.cancel() }
          done.withLock { $0 += 1 }
        }
      }
      #expect(done.withLock { $0 } < 10_000, "\(threads) threads")
    }
  }

  @Test func threadCounts() {
    #expect(ThreadPool(threads: 0).threads == 1)
    #expect(ThreadPool(threads: -5).threads == 1)
    #expect(ThreadPool().threads == ProcessInfo.processInfo.activeProcessorCount)
    #expect(ExecutionContext().threads == ProcessInfo.processInfo.activeProcessorCount)
  }

  #if os(Linux)
    private static func threadsOfThisProcess() throws -> Int {
      try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count
    }

    /// A pool's threads end with it, even where the last to let go of it is one of them. Other tests start and end some dozens meanwhile.
    @Test func threadsEndWithTheirPool() async throws {
      let before = try Self.threadsOfThisProcess()
      var context: ExecutionContext? = ExecutionContext(threads: .max)
      #expect(context?.threads == ThreadPool.maximumThreads)
      #expect(try Self.threadsOfThisProcess() > before + ThreadPool.maximumThreads / 2)
      let sum = Mutex(0)
      try await context?.run { try $0.parallel(2000) { index in sum.withLock { $0 += index } } }
      #expect(sum.withLock { $0 } == 1999 * 1000)
      context = nil
      for _ in 0..<1000 where try Self.threadsOfThisProcess() > before + ThreadPool.maximumThreads / 2 {
        try await Task.sleep(for: .milliseconds(10))
      }
      #expect(try Self.threadsOfThisProcess() < before + ThreadPool.maximumThreads / 2)
    }
  #endif
}
