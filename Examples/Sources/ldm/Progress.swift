import Foundation
import LatentDiffusion
import Synchronization

/// Shows progress: a bar on standard error if that is a terminal, otherwise a few lines on standard output. Standard error is for errors and warnings.
final class Progress: Sendable {
  /// What a command tells another one that runs it.
  enum Event: Sendable {
    case step(done: Int, count: Int)
    case warning(String)
    case drawn(DrawnFiles)
  }

  /// Told instead of people, where a command is run by another one.
  @TaskLocal static var listener: Listener?

  final class Listener: Sendable {
    let tell: @Sendable (Event) -> Void
    init(_ tell: @escaping @Sendable (Event) -> Void) { self.tell = tell }
  }

  private let isTerminal: Bool
  /// Whether the result is told in JSON.
  private let isJSON: Bool
  /// Whether nothing is shown but warnings and errors.
  private let isQuiet: Bool
  private let start = ContinuousClock.now
  /// When the steps began, and how many there had been before, in another process.
  private let steps = Mutex<(began: ContinuousClock.Instant, before: Int?)?>(nil)
  /// What was warned of.
  private let warnings = Mutex<Set<String>>([])
  /// Where lines go that are not warnings: standard output, unless the picture goes there. Nil where the result alone is told.
  private let lines: FileHandle?

  /// - Parameters:
  ///   - keepsOutputFree: whether standard output is for the picture.
  ///   - isQuiet: whether nothing is shown but errors, because another process shows it.
  ///   - isJSON: whether the result is told as one JSON object on standard output, and nothing else is.
  init(keepsOutputFree: Bool = false, isQuiet: Bool = false, isJSON: Bool = false) {
    lines = isJSON ? nil : keepsOutputFree ? .standardError : .standardOutput
    let isQuiet = isQuiet || Self.listener != nil
    (self.isQuiet, self.isJSON, isTerminal) = (isQuiet, isJSON, !isQuiet && isatty(2) == 1)
  }

  /// Shows work that takes a moment and has no steps.
  func begin(_ what: String) {
    if isTerminal { show("\(what) …") }
  }

  /// Shows a phase of a generation other than its steps.
  func phase(_ phase: GenerationPhase) {
    func part(_ done: Int, _ count: Int) -> String { count > 1 ? ", part \(min(done + 1, count)) of \(count)" : "" }
    switch phase {
    case .encodingPicture(let done, let count): begin("Encoding the picture\(part(done, count))")
    case .encodingPrompts: begin("Encoding the prompt")
    case .denoising:
      steps.withLock { $0 = (.now, nil) }
      begin("Drawing")
    case .decoding(let done, let count): begin("Decoding\(part(done, count))")
    }
  }

  func step(_ step: GenerationStep) {
    let (done, count) = (step.index + 1, step.count)
    Self.listener?.tell(.step(done: done, count: count))
    if isTerminal {
      bar(done, of: count, "step \(done) of \(count), \(elapsed)\(left(done, count, of: "step"))")
    } else if done == count || done * 4 / count != (done - 1) * 4 / count {
      write("step \(done) of \(count)\n", to: lines)
    }
  }

  /// Shows a step of frames that are drawn in the same passes: which frames, then the step.
  /// - Parameters:
  ///   - frames: counted from 0.
  ///   - batch: the number of those passes, of as many.
  func frames(_ frames: Range<Int>, of count: Int, batch: Int, of batches: Int, _ step: GenerationStep) {
    let (done, steps) = (batch * step.count + step.index + 1, batches * step.count)
    let names = frames.count == 1 ? "frame \(frames.upperBound)" : "frames \(frames.lowerBound + 1)–\(frames.upperBound)"
    if isTerminal {
      bar(done, of: steps, "\(names) of \(count), step \(step.index + 1) of \(step.count), \(elapsed)\(left(done, steps, of: "step"))")
    } else if step.index + 1 == step.count, batch + 1 == batches || (batch + 1) * 4 / batches != batch * 4 / batches {
      write("\(names) of \(count)\n", to: lines)
    }
  }

  /// Shows a step of a training: what it came to, then how long the rest will take, then the memory.
  /// - Parameter isLine: whether the step gets a line where there is no terminal.
  func training(_ done: Int, of count: Int, _ what: String, _ memory: String, secondsLeft: Double, isLine: Bool) {
    let left = done < count ? ", \(Self.clock(secondsLeft)) left" : ""
    if isTerminal {
      bar(done, of: count, "step \(done) of \(count), \(what)\(left), \(memory)")
    } else if isLine {
      write("step \(done) of \(count), \(what)\(left), \(memory)\n", to: lines)
    }
  }

  /// Shows a step of a job of many, on a terminal.
  func job(_ name: String, done: Int, of count: Int) {
    if isTerminal { bar(done, of: count, "job \(name), step \(done) of \(count), \(elapsed)") }
  }

  /// A bar, if it has room beside the text.
  private func bar(_ done: Int, of count: Int, _ text: String) {
    let width = min(30, Terminal.columns - text.count - 2)
    guard width >= 5 else { return show(text) }
    let filled = width * done / max(count, 1)
    show(String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled) + " " + text)
  }

  /// How long a step takes, and how long the others will if they take as long.
  private func left(_ done: Int, _ count: Int, of name: String) -> String {
    let known = steps.withLock { steps in
      if steps?.before == nil { steps?.before = done - 1 }
      return steps
    }
    guard let known, let before = known.before, done > before else { return "" }
    let one = (ContinuousClock.now - known.began) / .seconds(1) / Double(done - before)
    let pace = ", \(String(format: one < 10 ? "%.2f" : "%.1f", one)) s a \(name)"
    return done < count ? pace + ", \(Self.clock(one * Double(count - done))) left" : pace
  }

  private static func clock(_ seconds: Double) -> String {
    guard seconds >= 60 else { return String(format: "%.0f s", seconds.rounded(.up)) }
    let whole = Int(min(seconds, 1e9))
    return whole < 3600
      ? String(format: "%d:%02d", whole / 60, whole % 60) : String(format: "%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60)
  }

  /// Prints something to know before the work begins.
  func tell(_ what: String) {
    clear()
    write("\(what)\n", to: lines)
  }

  /// Prints a warning on standard error, once.
  func warn(_ what: String) {
    guard warnings.withLock({ $0.insert(what).inserted }) else { return }
    clear()
    if !isQuiet || Self.listener != nil { Progress.warn(what) }
  }

  static func warn(_ what: String) { note(what, as: "Warning: ") }

  /// Prints a sentence on standard error.
  static func note(_ what: String, as kind: String = "") {
    if let listener { return listener.tell(.warning(what)) }
    var sentence = what.split(whereSeparator: \.isNewline).joined(separator: " ")
    sentence.unicodeScalars.removeAll { $0.properties.generalCategory == .control }
    try? FileHandle.standardError.write(contentsOf: Data("\(kind)\(sentence)\n".utf8))
  }

  /// Prints the result as the last line.
  func end(_ result: String) {
    clear()
    write("\(result) (\(elapsed))\n", to: lines)
  }

  /// Prints what was drawn as the last line: a sentence, or an object.
  func end(_ result: String, _ drawn: DrawnFiles) throws {
    var drawn = drawn
    drawn.seconds = ((ContinuousClock.now - start) / .milliseconds(1)).rounded() / 1000
    Self.listener?.tell(.drawn(drawn))
    guard isJSON, !isQuiet else { return end(result) }
    clear()
    try printJSON(drawn, isPretty: false)
  }

  /// Removes the bar before an error is printed.
  func clear() {
    if isTerminal { write("\r\u{1B}[K", to: .standardError) }
  }

  private var elapsed: String { String(format: "%.1f s", (ContinuousClock.now - start) / .seconds(1)) }

  /// Replaces the current line. The text is cut, because a line wider than the terminal could not be erased.
  private func show(_ text: String) { write("\r\u{1B}[K\(text.prefix(max(1, Terminal.columns - 1)))", to: .standardError) }

  /// Ignores errors: if the reader of the progress goes away, the work continues.
  private func write(_ text: String, to handle: FileHandle?) {
    guard !isQuiet else { return }
    try? handle?.write(contentsOf: Data(text.utf8))
  }
}

/// What a command has drawn, for other programs.
struct DrawnFiles: Codable, Sendable {
  /// As they were named; - is standard output.
  let files: [String]
  let width, height: Int
  /// Of each clip; nil for pictures.
  var frames: Int?
  let seed: UInt64
  var seconds = 0.0
}
