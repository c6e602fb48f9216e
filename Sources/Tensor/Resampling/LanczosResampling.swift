import Foundation

/// Resampling of 8-bit pictures by a Lanczos filter with three lobes, which is widened if the picture shrinks, to avoid aliasing.
///
/// It works in 8 bits because the reference does: a model sees the resampled picture, so its values are part of the result.
///
/// Source: Turkowski, "Filters for common resampling tasks", 1990; the same values as Pillow's `Image.resize`.
public struct LanczosResampling: Sendable {
  private let width: Int
  private let newWidth: Int
  private let horizontal: LineResampling?
  private let vertical: LineResampling?
  private let isVerticalFirst: Bool

  /// - Precondition: all sides are positive.
  public init(width: Int, height: Int, toWidth newWidth: Int, toHeight newHeight: Int) {
    precondition(min(width, height, newWidth, newHeight) > 0, "\(width)×\(height) cannot be resampled to \(newWidth)×\(newHeight).")
    self.width = width
    self.newWidth = newWidth
    horizontal = newWidth == width ? nil : LineResampling(from: width, to: newWidth)
    vertical = newHeight == height ? nil : LineResampling(from: height, to: newHeight)
    // Each pass rounds, so their order matters. Pillow begins with the pass that leaves less work, by this measure since its version 13.
    isVerticalFirst = newHeight < height && height - newHeight > 2 * (width - newWidth)
  }

  /// - Parameters:
  ///   - pixels: of `[height, width, channels]`.
  ///   - channels: each is resampled separately.
  /// - Returns: of `[toHeight, toWidth, channels]`.
  public func callAsFunction(_ pixels: [UInt8], channels: Int) -> [UInt8] {
    func widened(_ plane: [UInt8]) -> [UInt8] { horizontal?.alongRows(plane, width: width, channels: channels) ?? plane }
    if isVerticalFirst { return widened(vertical?.alongColumns(pixels, rowLength: width * channels) ?? pixels) }
    let wide = widened(pixels)
    return vertical?.alongColumns(wide, rowLength: newWidth * channels) ?? wide
  }
}

/// Weights that turn a line of pixels into one of another length, in fixed point.
private struct LineResampling {
  struct Window {
    let start: Int
    let weights: [Int32]
  }

  /// Of 32 bits, this leaves 8 for the pixel and 2 for overshoot.
  static let fractionBits: Int32 = 22
  let length: Int
  let windows: [Window]

  init(from size: Int, to newSize: Int) {
    length = size
    let step = Double(size) / Double(newSize)
    let widening = max(step, 1)
    let support = 3 * widening
    windows = (0..<newSize).map { index in
      let center = (Double(index) + 0.5) * step
      let start = max(Int(center - support + 0.5), 0)
      let end = min(Int(center + support + 0.5), size)
      let weights = (start..<end).map { lanczos((Double($0) - center + 0.5) * (1 / widening)) }
      let sum = weights.reduce(0, +)
      let scale = Double(1 << Self.fractionBits)
      return Window(
        start: start,
        weights: weights.map { weight in
          let fixed = (sum == 0 ? weight : weight / sum) * scale
          return Int32(fixed + (fixed < 0 ? -0.5 : 0.5))
        })
    }
  }

  /// Resamples each row of `width` pixels to `windows.count` pixels.
  func alongRows(_ plane: [UInt8], width: Int, channels: Int) -> [UInt8] {
    let newLength = windows.count * channels
    let rows = plane.count / (width * channels)
    var result = [UInt8](repeating: 0, count: rows * newLength)
    for row in 0..<rows {
      for (index, window) in windows.enumerated() {
        for channel in 0..<channels {
          var sum = Self.half
          var source = (row * width + window.start) * channels + channel
          for weight in window.weights {
            sum &+= Int32(plane[source]) &* weight
            source += channels
          }
          result[row * newLength + index * channels + channel] = Self.pixel(sum)
        }
      }
    }
    return result
  }

  /// Resamples the rows, of `rowLength` values each, to `windows.count` rows.
  func alongColumns(_ plane: [UInt8], rowLength: Int) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: windows.count * rowLength)
    var sums = [Int32](repeating: 0, count: rowLength)
    for (row, window) in windows.enumerated() {
      for column in 0..<rowLength { sums[column] = Self.half }
      for (offset, weight) in window.weights.enumerated() {
        let source = (window.start + offset) * rowLength
        for column in 0..<rowLength { sums[column] &+= Int32(plane[source + column]) &* weight }
      }
      for column in 0..<rowLength { result[row * rowLength + column] = Self.pixel(sums[column]) }
    }
    return result
  }

  private static let half: Int32 = 1 << (fractionBits - 1)

  private static func pixel(_ sum: Int32) -> UInt8 { UInt8(clamping: sum >> fractionBits) }
}

private func lanczos(_ x: Double) -> Double {
  func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(x * .pi) / (x * .pi) }
  return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0
}
