import Foundation

/// How values between pixels are interpolated, under Pillow's names. A filter is widened if the picture shrinks, to avoid aliasing.
public enum ResamplingFilter: Sendable {
  /// A windowed sinc with three lobes.
  case lanczos
  /// Cubic polynomials with a = -½ (Keys 1981).
  case bicubic
  /// Straight lines.
  case bilinear

  /// Pixels on either side that count.
  fileprivate var support: Double {
    switch self {
    case .lanczos: 3
    case .bicubic: 2
    case .bilinear: 1
    }
  }

  fileprivate func weight(_ x: Double) -> Double {
    let distance = abs(x)
    switch self {
    case .lanczos:
      func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(x * .pi) / (x * .pi) }
      return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0
    case .bicubic:
      let a = -0.5
      if distance < 1 { return ((a + 2) * distance - (a + 3)) * distance * distance + 1 }
      return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * a : 0
    case .bilinear: return max(1 - distance, 0)
    }
  }
}

/// Resampling of 8-bit pictures.
///
/// It works in 8 bits because the reference does: a model sees the resampled picture, so its values are part of the result.
///
/// Source: Turkowski, "Filters for common resampling tasks", 1990; the same values as Pillow's `Image.resize`.
public struct PictureResampling: Sendable {
  private let width: Int
  private let columns: Range<Int>
  private let rows: Range<Int>
  private let horizontal: LineResampling?
  private let vertical: LineResampling?
  private let isVerticalFirst: Bool

  /// - Parameters:
  ///   - columns: of the new picture that are made; nil: all.
  ///   - rows: of the new picture that are made; nil: all.
  /// - Precondition: all sides are positive, and the columns and rows lie within the new picture.
  public init(
    _ filter: ResamplingFilter = .lanczos, width: Int, height: Int, toWidth newWidth: Int, toHeight newHeight: Int,
    columns: Range<Int>? = nil, rows: Range<Int>? = nil
  ) {
    precondition(min(width, height, newWidth, newHeight) > 0, "\(width)×\(height) cannot be resampled to \(newWidth)×\(newHeight).")
    self.width = width
    (self.columns, self.rows) = (columns ?? 0..<newWidth, rows ?? 0..<newHeight)
    func line(_ size: Int, _ newSize: Int, _ part: Range<Int>) -> LineResampling? {
      newSize == size && part.count == size ? nil : LineResampling(filter, from: size, to: newSize, part: part)
    }
    horizontal = line(width, newWidth, self.columns)
    vertical = line(height, newHeight, self.rows)
    // Each pass rounds, so their order matters. Pillow begins with the pass that leaves less work, by this measure since its version 13.
    isVerticalFirst = newHeight < height && height - newHeight > 2 * (width - newWidth)
  }

  /// - Parameters:
  ///   - pixels: of `[height, width, channels]`.
  ///   - channels: each is resampled separately.
  /// - Returns: of `[rows, columns, channels]`.
  public func callAsFunction(_ pixels: [UInt8], channels: Int) -> [UInt8] {
    func widened(_ plane: [UInt8]) -> [UInt8] { horizontal?.alongRows(plane, width: width, channels: channels) ?? plane }
    if isVerticalFirst { return widened(vertical?.alongColumns(pixels, rowLength: width * channels) ?? pixels) }
    let wide = widened(pixels)
    return vertical?.alongColumns(wide, rowLength: columns.count * channels) ?? wide
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
  let windows: [Window]

  init(_ filter: ResamplingFilter, from size: Int, to newSize: Int, part: Range<Int>) {
    let step = Double(size) / Double(newSize)
    let widening = max(step, 1)
    let support = filter.support * widening
    windows = part.map { index in
      // A line of the same length is only cut: weighing it would change nothing.
      guard size != newSize else { return Window(start: index, weights: [1 << Self.fractionBits]) }
      let center = (Double(index) + 0.5) * step
      let start = max(Int(center - support + 0.5), 0)
      let end = min(Int(center + support + 0.5), size)
      let weights = (start..<end).map { filter.weight((Double($0) - center + 0.5) * (1 / widening)) }
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

extension Tensor {
  /// The elements as bytes, 0…1 as 0…255: rounded to the nearest and halves to even, as NumPy does in diffusers' `VaeImageProcessor.numpy_to_pil`. Values
  /// outside are clamped, and NaN becomes 0.
  package var pictureBytes: [UInt8] { elements.map { $0 > 0 ? UInt8((min($0, 1) * 255).rounded(.toNearestOrEven)) : 0 } }
}
