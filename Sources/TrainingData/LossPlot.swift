import Foundation

/// A drawing of how the loss fell: what was measured, faintly, and the same smoothed. A page of SVG 1.1, which is text, for light and dark backgrounds.
public struct LossPlot: Sendable {
  /// Above the drawing.
  public var title: String
  /// Steps with their losses, in the order of the steps. Losses that are no numbers are left out, and the drawing says how many.
  public var points: [(step: Int, loss: Double)]
  /// How much of the mean so far is kept at each point, from 0 up to 1.
  public var smoothing: Double

  /// A drawing of these points.
  public init(title: String = "Loss", points: [(step: Int, loss: Double)], smoothing: Double = 0.95) {
    (self.title, self.points, self.smoothing) = (title, points, min(max(smoothing, 0), 0.9999))
  }

  /// The exponential mean of the losses, which begins with the first one without a bias. Source: Kingma and Ba 2015, section 3, for the correction.
  public static func smoothed(_ losses: [Double], by smoothing: Double) -> [Double] {
    var (sum, weight) = (0.0, 0.0)
    return losses.map { loss in
      sum = smoothing * sum + (1 - smoothing) * loss
      weight = smoothing * weight + (1 - smoothing)
      return sum / weight
    }
  }

  private static let (width, height) = (800.0, 450.0)
  private static let plot = (left: 76.0, right: 764.0, top: 50.0, bottom: 392.0)
  /// More points than this are drawn as the lowest and the highest of each piece.
  private static let mostPieces = 700

  /// The file's text.
  public var svg: String {
    let finite = points.filter { $0.loss.isFinite && abs($0.loss) < 1e300 }
    let smooth = Self.smoothed(finite.map(\.loss), by: smoothing)
    let across = Axis(finite.map { Double($0.step) }, from: Self.plot.left, to: Self.plot.right, isWhole: true)
    let up = Axis(finite.map(\.loss), from: Self.plot.bottom, to: Self.plot.top, isWhole: false)
    let raw = Self.thinned(finite.map { (Double($0.step), $0.loss) })
    let curve = Self.thinned(zip(finite, smooth).map { (Double($0.step), $1) })
    return """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 450" width="800" height="450" role="img" aria-label="\(Self.escaped(title))">
      <style>
        .page { fill: #ffffff } text { fill: #24292f; font: 13px system-ui, sans-serif } .title { font-size: 16px; font-weight: 600 }
        .grid { stroke: #d8dee4 } .axis { stroke: #57606a } path { fill: none; stroke: #0969da; stroke-linejoin: round; stroke-linecap: round }
        .raw { stroke-width: 1; opacity: 0.3 } .smooth { stroke-width: 2 }
        @media (prefers-color-scheme: dark) {
          .page { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } .axis { stroke: #8b949e } path { stroke: #58a6ff }
        }
      </style>
      <rect class="page" width="800" height="450"/>
      <text class="title" x="\(Self.number(Self.plot.left))" y="30">\(Self.escaped(title))</text>
      \(lines(across: across, up: up).joined(separator: "\n"))
      <text x="420" y="440" text-anchor="middle">step</text>
      <text x="20" y="221" text-anchor="middle" transform="rotate(-90 20 221)">loss</text>
      <path class="raw" d="\(Self.path(raw, across, up))"/>
      <path class="smooth" d="\(Self.path(curve, across, up))"/>
      <text x="\(Self.number(Self.plot.right))" y="440" text-anchor="end">\(Self.escaped(note(finite.count, last: smooth.last)))</text>
      </svg>

      """
  }

  private func note(_ count: Int, last: Double?) -> String {
    let lost = points.count - count
    return [
      last.map { "smoothed, at the end: " + Axis.label($0, step: abs($0) / 1000) } ?? "no losses", lost > 0 ? "\(lost) no numbers" : nil,
    ]
    .compactMap(\.self).joined(separator: "; ")
  }

  /// The lines of the grid with their labels, and the axes.
  private func lines(across: Axis, up: Axis) -> [String] {
    let (left, right, top, bottom) = (Self.plot.left, Self.plot.right, Self.plot.top, Self.plot.bottom)
    func line(_ kind: String, _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double) -> String {
      "<line class=\"\(kind)\" x1=\"\(Self.number(x1))\" y1=\"\(Self.number(y1))\" x2=\"\(Self.number(x2))\" y2=\"\(Self.number(y2))\"/>"
    }
    let columns = across.ticks.flatMap { tick -> [String] in
      let x = across.place(tick.value)
      return [line("grid", x, top, x, bottom), "<text x=\"\(Self.number(x))\" y=\"412\" text-anchor=\"middle\">\(tick.label)</text>"]
    }
    let rows = up.ticks.flatMap { tick -> [String] in
      let y = up.place(tick.value)
      return [line("grid", left, y, right, y), "<text x=\"68\" y=\"\(Self.number(y + 4))\" text-anchor=\"end\">\(tick.label)</text>"]
    }
    return columns + rows + [line("axis", left, bottom, right, bottom), line("axis", left, top, left, bottom)]
  }

  /// Of very many points, the lowest and the highest of pieces of equally many, so that no peak is lost.
  private static func thinned(_ points: [(Double, Double)]) -> [(Double, Double)] {
    guard points.count > 2 * mostPieces else { return points }
    return (0..<mostPieces).flatMap { piece in
      let range = points.count * piece / mostPieces..<points.count * (piece + 1) / mostPieces
      let low = range.min { points[$0].1 < points[$1].1 } ?? range.lowerBound, high = range.max { points[$0].1 < points[$1].1 } ?? low
      return (low == high ? [low] : [min(low, high), max(low, high)]).map { points[$0] }
    }
  }

  private static func path(_ points: [(Double, Double)], _ across: Axis, _ up: Axis) -> String {
    let places = points.map { number(across.place($0.0)) + " " + number(up.place($0.1)) }
    // A line of no length has a dot at its end where the caps are round.
    return places.isEmpty ? "" : "M" + (places.count == 1 ? places + places : places).joined(separator: "L")
  }

  /// To a hundredth of a point.
  private static func number(_ value: Double) -> String {
    let rounded = (value * 100).rounded() / 100
    return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
  }

  /// A text as XML has it. Characters that XML does not allow are left out.
  private static func escaped(_ text: String) -> String {
    let names: [Unicode.Scalar: String] = ["&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;"]
    return text.unicodeScalars.reduce(into: "") { result, scalar in
      guard scalar.value >= 32 || scalar == "\n" || scalar == "\t", scalar.value & 0xFFFE != 0xFFFE else { return }
      result += names[scalar] ?? String(scalar)
    }
  }

  /// A side of the drawing: values, where they are, and round ones among them.
  private struct Axis {
    let ticks: [(value: Double, label: String)]
    private let (low, high): (Double, Double)
    private let (start, end): (Double, Double)

    /// - Parameter isWhole: whether there is nothing between two whole numbers.
    init(_ values: [Double], from start: Double, to end: Double, isWhole: Bool) {
      var (low, high) = (values.min() ?? 0, values.max() ?? 1)
      if high - low <= 1e-9 * max(abs(low), abs(high)) + 1e-30 {
        // What is as good as one value has the middle.
        let margin = max(abs(low) / 10, isWhole ? 1 : 1e-9)
        (low, high) = (low - margin, high + margin)
      }
      let step = Self.roundStep((high - low) / 6, isWhole: isWhole)
      (self.low, self.high) = isWhole ? (low, high) : ((low / step).rounded(.down) * step, (high / step).rounded(.up) * step)
      (self.start, self.end) = (start, end)
      let first = Int((self.low / step - 1e-6).rounded(.up)), last = Int((self.high / step + 1e-6).rounded(.down))
      ticks = first > last ? [] : (first...last).map { (Double($0) * step, Self.label(Double($0) * step, step: step)) }
    }

    func place(_ value: Double) -> Double { start + (value - low) / (high - low) * (end - start) }

    /// The next larger one of 1, 2 and 5 times a power of ten.
    private static func roundStep(_ step: Double, isWhole: Bool) -> Double {
      let power = pow(10, log10(step).rounded(.down))
      let round = power * ([1, 2, 5, 10].first { $0 * power >= step * (1 - 1e-9) } ?? 10)
      return isWhole ? max(round, 1) : round
    }

    /// With as many digits as tell two steps apart.
    static func label(_ value: Double, step: Double) -> String {
      let digits = step > 0 ? max(0, Int((-log10(step) - 1e-9).rounded(.up))) : 0
      if value != 0, digits > 6 || abs(value) >= 1e7 { return String(format: "%.2g", value) }
      return String(format: "%.\(min(digits, 6))f", value)
    }
  }
}
