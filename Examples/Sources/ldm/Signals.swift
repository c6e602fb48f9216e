import Dispatch
import Foundation
import Synchronization

/// Handles interrupt (Ctrl-C) and termination: cancels the work, and ends the program if the work does not end soon.
///
/// Files are written under another name and then renamed. The program does not end in between, so nothing half-written is left.
struct Signals {
  private let sources: [any DispatchSourceSignal]
  private static let received = Atomic<Int32>(0)
  private static let early = Atomic<Int32>(0)
  private static let writing = Mutex<Void>(())

  init(cancel: @escaping @Sendable () -> Void) {
    // Writing to a pipe that nobody reads is then an ordinary error.
    signal(SIGPIPE, SIG_IGN)
    sources = [SIGINT, SIGTERM].map { number in
      // What arrives before the source listens is noted: a signal that was ignored would be lost.
      signal(number) { Self.early.store($0, ordering: .relaxed) }
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      let handle: @Sendable () -> Void = {
        let isFirst = Self.received.exchange(number, ordering: .relaxed) == 0
        cancel()
        // A second signal ends the program at once.
        let patience: DispatchTimeInterval = isFirst ? .milliseconds(700) : .milliseconds(0)
        DispatchQueue.global().asyncAfter(deadline: .now() + patience) { Self.leave(number) }
      }
      source.setEventHandler(handler: DispatchWorkItem(block: handle))
      source.setRegistrationHandler(handler: DispatchWorkItem { if Self.early.load(ordering: .relaxed) == number { handle() } })
      source.resume()
      return source
    }
  }

  /// Writes a file. A signal waits until it is written as a whole.
  static func whole<Result>(_ write: () throws -> Result) rethrows -> Result {
    try writing.withLock { _ in try write() }
  }

  /// Ends the program after a cancellation.
  func exit() -> Never {
    let number = Self.received.load(ordering: .relaxed)
    Self.leave(number == 0 ? SIGINT : number)
  }

  private static func leave(_ number: Int32) -> Never {
    writing.withLock { _ in
      try? FileHandle.standardError.write(contentsOf: Data("\(isatty(2) == 1 ? "\r\u{1B}[K" : "")Stopped.\n".utf8))
      // Not `exit`: engine threads may still be running, and nothing is left to be flushed.
      _exit(128 + number)
    }
  }
}
