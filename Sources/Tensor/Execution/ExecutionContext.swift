import CLatentDiffusionKernels
import Synchronization

@inline(__always) func kernelPause() { ck_pause() }

/// Where computation runs: the threads it may use, and whether it was cancelled.
///
/// Every operation of the engine takes a context. All throw `CancellationError` within milliseconds of a cancellation, even
/// inside a layer, because a step on a CPU can last seconds.
public struct ExecutionContext: Sendable {
  private let pool: ThreadPool
  private let cancellation: Cancellation
  /// The number of the pool's thread that uses this context; arbitrary on other threads.
  private var thread = 0
  /// Whether this context is for one of several parts that run on one thread each.
  private var isApart = false
  /// The number of threads that another machine or context will have, if this context only counts what will be computed there.
  private var plannedThreads: Int?
  /// The engine that computes.
  public var engine: any Engine = CPUEngine()
  /// Receives intermediate results with the name of the module that made them, as diffusers and transformers name it
  /// (`mid_block.attentions.0`). It serves to find where two implementations diverge.
  public var observer: (@Sendable (_ module: String, _ result: Tensor) -> Void)?
  /// Receives the progress of a long operation that is done in parts, such as the tiles of a picture: before each part, and after the last.
  public var progress: (@Sendable (_ done: Int, _ count: Int) -> Void)?
  /// Told of what is loaded and drawn here, how long that takes, and of warnings.
  public var workObserver: (any WorkObserver)?
  /// What layers compute with in place of their own parameters, or add to them.
  public var adaptation: Adaptation?

  private final class Cancellation: Sendable {
    private let wanted = Atomic<Bool>(false)
    /// The cancellation of the context that this one belongs to.
    private let whole: Cancellation?

    init(within whole: Cancellation? = nil) { self.whole = whole }

    var isRequested: Bool { wanted.load(ordering: .relaxed) || whole?.isRequested ?? false }

    func request() { wanted.store(true, ordering: .relaxed) }
  }

  /// A context on the threads that all default contexts of the process share: one for each processor.
  public init() { self.init(pool: Self.machine) }

  /// - Parameter threads: the number of its own threads, from 1 up.
  public init(threads: Int) { self.init(pool: ThreadPool(threads: threads)) }

  /// A context on threads that it may share with other contexts.
  /// - Parameter pool: all contexts on one pool together compute on no more than its threads.
  public init(pool: ThreadPool) { self.init(pool: pool, cancellation: Cancellation()) }

  /// A context with another engine.
  /// - Parameter threads: the number that `threads` reports; nil: that of the process's shared threads, on which it runs.
  public init(_ engine: any Engine, threads: Int? = nil) {
    self.init()
    (self.engine, plannedThreads) = (engine, threads)
  }

  private init(pool: ThreadPool, cancellation: Cancellation) {
    self.pool = pool
    self.cancellation = cancellation
  }

  private static let machine = ThreadPool()

  /// Whether a pass may skip rows that repeat others, or be cut into parts: not if an observer or the engine follows intermediate results.
  package var mayRearrange: Bool { observer == nil && engine.mayRearrange }

  /// Threads that may compute at the same time; 1 in one of several parts.
  public var threads: Int { isApart ? 1 : plannedThreads ?? pool.threads }

  /// Ends everything that runs in this context with `CancellationError`.
  public func cancel() { cancellation.request() }

  /// True once `cancel` was called, on this context or on one that it belongs to.
  public var isCancelled: Bool { cancellation.isRequested }

  /// - Throws: `CancellationError` if the context was cancelled.
  public func checkCancellation() throws {
    if isCancelled { throw CancellationError() }
  }

  /// Runs blocking work on an engine thread. Cancelling the task or this context ends it within milliseconds.
  ///
  /// - Throws: what `work` throws, and `CancellationError`.
  public func run<Result: Sendable>(_ work: @escaping @Sendable (ExecutionContext) throws -> Result) async throws -> Result {
    var context = ExecutionContext(pool: pool, cancellation: Cancellation(within: cancellation))
    (context.observer, context.progress, context.engine, context.adaptation) = (observer, progress, engine, adaptation)
    context.workObserver = workObserver
    let child = context
    try checkCancellation()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        pool.submit { thread in
          var own = child
          own.thread = thread
          continuation.resume(
            with: Swift.Result { [own] in
              try own.checkCancellation()
              return try work(own)
            })
        }
      }
    } onCancel: {
      child.cancel()
    }
  }

  /// Runs `body` for every index below `count`, in parallel. Each call must write to its own place.
  ///
  /// - Throws: `CancellationError`; some indices were not run then.
  package func parallel(_ count: Int, _ body: (Int) -> Void) throws {
    try checkCancellation()
    if isApart {
      for index in 0..<count where !isCancelled { body(index) }
    } else {
      pool.forEach(count, on: thread, isCancelled: { isCancelled }, body)
    }
    try checkCancellation()
  }

  /// Runs `body` for every index below `count`, in parallel, each call on one thread: its loops do not use others.
  ///
  /// - Returns: what the bodies return, in order.
  /// - Throws: what the first of them throws, and `CancellationError`.
  package func apart<Output: Sendable>(_ count: Int, _ body: (Int, ExecutionContext) throws -> Output) throws -> [Output] {
    var own = self
    own.isApart = true
    if let counting = engine as? CountingEngine { return try counting.apart(count, in: own, body) }
    let results = Mutex<[Int: Result<Output, any Error>]>([:])
    try parallel(count) { index in
      let result = Result { [own] in try body(index, own) }
      results.withLock { $0[index] = result }
    }
    return try results.withLock { found in try (0..<count).compactMap { try found[$0]?.get() } }
  }

  /// The same, but never cancelled: for work of milliseconds.
  func parallelToTheEnd(_ count: Int, _ body: (Int) -> Void) {
    if isApart { (0..<count).forEach(body) } else { pool.forEach(count, on: thread, isCancelled: { false }, body) }
  }
}

extension Tensor {
  /// Runs `body` for rows of about 16 KiB at a time, in parallel.
  func forRuns(in context: ExecutionContext, _ body: (_ begin: Int, _ rows: Int) -> Void) throws {
    let rows = shape.rows
    let run = max(1, 4096 / max(shape.columns, 1))
    try context.parallel((rows + run - 1) / run) { body($0 * run, min(run, rows - $0 * run)) }
  }
}
