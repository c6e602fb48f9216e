import CKernels
import Synchronization

@inline(__always) func kernelPause() { ck_pause() }

/// Where computation happens: the threads it may use and whether it is still wanted.
///
/// Every operation of the engine takes one. They all throw `CancellationError` within milliseconds of a cancellation, inside a
/// layer if need be, since a step on a CPU can last seconds.
public struct ExecutionContext: Sendable {
  private let pool: ThreadPool
  private let cancellation: Cancellation
  /// Told of intermediate results by the name of the module that made them, as diffusers and transformers name it
  /// (`mid_block.attentions.0`): to find where two implementations part.
  public var observer: (@Sendable (_ module: String, _ result: Tensor) -> Void)?

  private final class Cancellation: Sendable {
    let isRequested = Atomic<Bool>(false)
  }

  /// A context on the threads that all default contexts of the process share: one for each processor.
  public init() { self.init(pool: Self.machine) }

  /// - Parameter threads: threads of its own, from 1 up.
  public init(threads: Int) { self.init(pool: ThreadPool(threads: threads)) }

  public init(pool: ThreadPool) {
    self.pool = pool
    cancellation = Cancellation()
  }

  private static let machine = ThreadPool()

  public var threads: Int { pool.threads }

  /// Ends everything that runs in this context with `CancellationError`.
  public func cancel() { cancellation.isRequested.store(true, ordering: .relaxed) }

  public var isCancelled: Bool { cancellation.isRequested.load(ordering: .relaxed) }

  public func checkCancellation() throws {
    if isCancelled { throw CancellationError() }
  }

  /// Runs blocking work on an engine thread; cancelling the task ends it within.
  ///
  /// - Throws: what `work` throws, and `CancellationError`.
  public func run<Result: Sendable>(_ work: @escaping @Sendable (ExecutionContext) throws -> Result) async throws -> Result {
    var context = ExecutionContext(pool: pool)
    context.observer = observer
    let child = context
    try checkCancellation()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        pool.submit {
          continuation.resume(
            with: Swift.Result {
              try child.checkCancellation()
              return try work(child)
            })
        }
      }
    } onCancel: {
      child.cancel()
    }
  }

  /// Runs `body` for every index below `count`, in parallel; each must write to a place of its own.
  ///
  /// - Throws: `CancellationError`; some indices were not run then.
  func parallel(_ count: Int, _ body: (Int) -> Void) throws {
    try checkCancellation()
    pool.forEach(count, isCancelled: { isCancelled }, body)
    try checkCancellation()
  }
}
