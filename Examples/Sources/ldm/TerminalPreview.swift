import Foundation
import ImageFiles
import Synchronization

/// Pictures in the terminal behind standard error, each in the place of the one before: as kitty's graphics or as sixels where the terminal says that it shows
/// them, and as Unicode half blocks elsewhere.
final class TerminalPreview: Sendable {
  private enum Kind { case kitty, sixel, blocks }
  private let kind: Kind
  private let columns: Int
  /// The rows of the picture before.
  private let shown = Mutex(0)

  /// Nil where standard error is no terminal.
  init?() {
    guard isatty(2) == 1 else { return nil }
    let environment = ProcessInfo.processInfo.environment
    let program = environment["TERM_PROGRAM"] ?? ""
    if environment["KITTY_WINDOW_ID"] != nil || environment["TERM"]?.contains("kitty") == true || ["ghostty", "WezTerm"].contains(program) {
      kind = .kitty
    } else {
      kind = Terminal.attributes().contains("4") ? .sixel : .blocks
    }
    columns = Terminal.columns
  }

  /// Draws above the line of the cursor, which the progress then uses.
  func show(_ picture: Picture) {
    let text =
      switch kind {
      case .blocks: blocks(picture)
      case .kitty: kitty(picture)
      case .sixel: sixels(picture)
      }
    try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
  }

  /// The rows of text that a picture takes.
  private func size(of picture: Picture) -> (columns: Int, rows: Int) {
    let columns = max(2, min(self.columns - 1, 64))
    return (columns, max(1, min(40, columns * picture.height / picture.width / 2)))
  }

  /// A drawing in the rows above the cursor's line, over the one before. Room is made first, since the terminal may scroll.
  /// - Parameter drawing: after which the cursor is where it was before.
  private func placed(_ rows: Int, _ drawing: String) -> String {
    let before = shown.withLock { shown in
      defer { shown = rows }
      return shown
    }
    let down = String(repeating: "\n", count: rows)
    return "\r\u{1B}[K" + up(before) + down + up(rows) + drawing + down + "\r"
  }

  private func up(_ rows: Int) -> String { rows > 0 ? "\u{1B}[\(rows)A" : "" }

  /// Two pixels in each character: the upper one is its colour, the lower one its background.
  private func blocks(_ picture: Picture) -> String {
    let (columns, rows) = size(of: picture)
    let small = picture.resized(width: columns, height: rows * 2)
    func colour(_ x: Int, _ y: Int) -> String {
      let start = (y * columns + x) * 3
      return small.pixels[start..<start + 3].map(String.init).joined(separator: ";")
    }
    let lines = (0..<rows).map { row in
      (0..<columns).map { "\u{1B}[38;2;\(colour($0, 2 * row))m\u{1B}[48;2;\(colour($0, 2 * row + 1))m▀" }.joined() + "\u{1B}[0m\u{1B}[K"
    }
    return placed(rows, lines.joined(separator: "\r\n") + "\r" + up(rows - 1))
  }

  /// Source: kitty's terminal graphics protocol: a PNG in base64, in pieces of 4096 characters; the same number takes the place of the picture before.
  private func kitty(_ picture: Picture) -> String {
    let (columns, rows) = size(of: picture)
    guard let data = try? picture.pngData() else { return "" }
    let text = Array(data.base64EncodedString().utf8),
      pieces = stride(from: 0, to: text.count, by: 4096).map { text[$0..<min($0 + 4096, text.count)] }
    let drawing = pieces.enumerated().map { index, piece in
      let head = index == 0 ? "a=T,f=100,i=31,q=2,C=1,c=\(columns),r=\(rows)," : ""
      return "\u{1B}_G\(head)m=\(index + 1 < pieces.count ? 1 : 0);\(String(decoding: piece, as: UTF8.self))\u{1B}\\"
    }
    return placed(rows, drawing.joined())
  }

  /// Source: DEC's sixel graphics, with a colour cube of six steps a channel.
  private func sixels(_ picture: Picture) -> String {
    let (columns, rows) = size(of: picture)
    let width = columns * 8, height = rows * 16
    let large = picture.resized(width: width, height: height)
    let indices = (0..<width * height).map { pixel in
      (0..<3).reduce(0) { $0 * 6 + (Int(large.pixels[pixel * 3 + $1]) * 5 + 127) / 255 }
    }
    var text = "\u{1B}P0;1q\"1;1;\(width);\(height)"
    for colour in 0..<216 { text += "#\(colour);2;\(colour / 36 * 20);\(colour / 6 % 6 * 20);\(colour % 6 * 20)" }
    for band in stride(from: 0, to: height, by: 6) {
      let lines = band..<min(band + 6, height)
      for colour in Set(indices[band * width..<lines.upperBound * width]).sorted() {
        let marks = (0..<width).map { x in
          UInt8(63 + lines.reduce(0) { $0 | (indices[$1 * width + x] == colour ? 1 << ($1 - band) : 0) })
        }
        text += "#\(colour)" + String(decoding: marks, as: UTF8.self) + "$"
      }
      text += "-"
    }
    return placed(rows, "\u{1B}7" + text + "\u{1B}\\\u{1B}8")
  }
}

/// The terminal behind standard error.
enum Terminal {
  static var columns: Int {
    var size = winsize()
    return ioctl(2, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
  }

  /// What it answers to the question for its device attributes: 4 among them says that it shows sixels. Nothing if it does not answer within a fifth of a
  /// second.
  static func attributes() -> [Substring] {
    let terminal = open("/dev/tty", O_RDWR | O_NOCTTY)
    guard terminal >= 0 else { return [] }
    defer { close(terminal) }
    var before = termios()
    guard tcgetattr(terminal, &before) == 0 else { return [] }
    var raw = before
    cfmakeraw(&raw)
    raw.c_lflag |= tcflag_t(ISIG)
    guard tcsetattr(terminal, TCSANOW, &raw) == 0 else { return [] }
    defer { tcsetattr(terminal, TCSANOW, &before) }
    let question = Array("\u{1B}[c".utf8)
    guard write(terminal, question, question.count) == question.count else { return [] }
    var answer: [UInt8] = []
    while answer.count < 100, answer.last != UInt8(ascii: "c") {
      var ready = pollfd(fd: terminal, events: Int16(POLLIN), revents: 0), byte: UInt8 = 0
      guard poll(&ready, 1, 200) > 0, read(terminal, &byte, 1) == 1 else { return [] }
      answer.append(byte)
    }
    return String(decoding: answer, as: UTF8.self).drop { $0 != "?" }.dropFirst().dropLast().split(separator: ";")
  }
}
