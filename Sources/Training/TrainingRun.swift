import Synchronization
import Tensor

/// A training under way, step by step.
///
/// It is pulled: one `next()` takes one step, on the engine's threads, and nothing happens in between. It ends with the last step of the schedule. Cancelling
/// the task ends the step that is running with `CancellationError`; the trainer is then as it was before that step.
public struct TrainingRun<Objective: TrainingObjective>: AsyncSequence, AsyncIteratorProtocol, Sendable {
  private final class Run: Sendable {
    // Under a lock of its own, so that parameters are changed in place and not copied.
    let trainer: Mutex<Trainer<Objective>>
    init(_ trainer: Trainer<Objective>) { self.trainer = Mutex(trainer) }
  }
  private let run: Run
  private let context: ExecutionContext

  fileprivate init(_ trainer: Trainer<Objective>, in context: ExecutionContext) { (run, self.context) = (Run(trainer), context) }

  /// The trainer after the steps that have been taken.
  public var trainer: Trainer<Objective> { run.trainer.withLock { $0 } }

  /// Goes on where it is: steps that have been taken are not taken again.
  public func makeAsyncIterator() -> Self { self }

  /// Takes the next step; nil after the last.
  /// - Throws: `TrainingError`, `CancellationError`, what the dataset and the model throw.
  public func next() async throws -> TrainingStep? {
    try await context.run { [run] context in
      try run.trainer.withLock { trainer in trainer.steps < trainer.plannedSteps ? try trainer.step(in: context) : nil }
    }
  }
}

extension Trainer {
  /// The steps from here to the end of the schedule.
  /// - Parameter context: whose threads compute.
  public func steps(in context: ExecutionContext = ExecutionContext()) -> TrainingRun<Objective> { TrainingRun(self, in: context) }
}
