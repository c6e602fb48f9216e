import Foundation
import LatentDiffusion

/// What is under way: a bar on standard error where that is a terminal, else a few quiet lines on standard output. Standard error is for
/// what went wrong.
struct Progress {
  private let isTerminal = isatty(2) == 1
  private let start = ContinuousClock.now

  /// Something that takes a moment and has no steps.
  func begin(_ what: String) {
    if isTerminal { write("\r\u{1B}[K\(what) …") }
  }

  func step(_ step: GenerationStep) {
    let (done, count) = (step.index + 1, step.count)
    if isTerminal {
      let width = 30
      let filled = width * done / count
      let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
      write("\r\u{1B}[K\(bar) step \(done) of \(count), \(elapsed)")
    } else if done == count || done * 4 / count != (done - 1) * 4 / count {
      write("step \(done) of \(count)\n", to: .standardOutput)
    }
  }

  /// Something to know before the work begins, on standard output.
  func tell(_ what: String) {
    clear()
    write("\(what)\n", to: .standardOutput)
  }

  /// The last word, on standard output.
  func end(_ result: String) {
    if isTerminal { write("\r\u{1B}[K") }
    write("\(result) (\(elapsed))\n", to: .standardOutput)
  }

  /// Takes the bar away, before an error is told.
  func clear() {
    if isTerminal { write("\r\u{1B}[K") }
  }

  private var elapsed: String {
    let parts = (ContinuousClock.now - start).components
    return String(format: "%.1f s", Double(parts.seconds) + Double(parts.attoseconds) * 1e-18)
  }

  /// A reader of the progress that has gone away does not end the work.
  private func write(_ text: String, to handle: FileHandle = .standardError) { try? handle.write(contentsOf: Data(text.utf8)) }
}
