import Synchronization

/// How a drawing is to end before its time. It is looked at between steps.
final class StopSign: Sendable {
  enum Wish: Sendable {
    case goOn
    /// What is there of the picture is the result, and no other follows.
    case interrupt
    /// What is there of the picture is the result, and the job goes on with the next one.
    case skip
    /// Another process goes on.
    case park
  }

  private let state = Mutex(Wish.goOn)

  var wish: Wish {
    get { state.withLock { $0 } }
    set { state.withLock { $0 = newValue } }
  }
}
