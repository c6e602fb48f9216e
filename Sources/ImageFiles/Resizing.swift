import Foundation

extension Picture {
  /// How pixels between pixels are made up.
  public enum ResizingFilter: Sendable {
    /// Windowed sinc over three lobes, widened when the picture shrinks so that nothing flickers; for pictures.
    case lanczos
    /// The pixel that is there; for masks, whose values must not mix.
    case nearest
  }

  /// The whole picture at another size, the same values as Pillow's `Image.resize`.
  /// - Precondition: both sides are positive.
  public func resized(width newWidth: Int, height newHeight: Int, filter: ResizingFilter = .lanczos) -> Picture {
    precondition(newWidth > 0 && newHeight > 0, "A picture cannot be resized to \(newWidth)×\(newHeight).")
    if newWidth == width, newHeight == height { return self }
    switch filter {
    case .nearest: return resizedToNearest(newWidth, newHeight)
    case .lanczos: return resizedByLanczos(newWidth, newHeight)
    }
  }

  private func resizedToNearest(_ newWidth: Int, _ newHeight: Int) -> Picture {
    let columns = nearestIndices(from: width, to: newWidth)
    let rows = nearestIndices(from: height, to: newHeight)
    func pick(_ plane: [UInt8], _ channels: Int) -> [UInt8] {
      var result: [UInt8] = []
      result.reserveCapacity(newWidth * newHeight * channels)
      for row in rows {
        for column in columns {
          let start = (row * width + column) * channels
          result.append(contentsOf: plane[start..<start + channels])
        }
      }
      return result
    }
    return Picture(width: newWidth, height: newHeight, pixels: pick(pixels, 3), alpha: alpha.map { pick($0, 1) })
  }

  /// Colours are weighted with their opacity, so that what cannot be seen does not bleed into what can.
  private func resizedByLanczos(_ newWidth: Int, _ newHeight: Int) -> Picture {
    let horizontal = newWidth == width ? nil : Resampling(from: width, to: newWidth)
    let vertical = newHeight == height ? nil : Resampling(from: height, to: newHeight)
    // Each pass rounds, so their order matters. Pillow begins with the one that leaves less to do, by this measure since its version 13.
    let isVerticalFirst = newHeight < height && height - newHeight > 2 * (width - newWidth)
    func resize(_ plane: [UInt8], _ channels: Int) -> [UInt8] {
      func widen(_ plane: [UInt8]) -> [UInt8] { horizontal?.alongRows(plane, width: width, channels: channels) ?? plane }
      if isVerticalFirst { return widen(vertical?.alongColumns(plane, rowLength: width * channels) ?? plane) }
      let wide = widen(plane)
      return vertical?.alongColumns(wide, rowLength: newWidth * channels) ?? wide
    }
    guard let alpha else { return Picture(width: newWidth, height: newHeight, pixels: resize(pixels, 3)) }
    let weighted = pixels.indices.map { UInt8(dividedBy255(Int(pixels[$0]) * Int(alpha[$0 / 3]))) }
    let newAlpha = resize(alpha, 1)
    var colours = resize(weighted, 3)
    for index in colours.indices {
      let opacity = Int(newAlpha[index / 3])
      if opacity != 0, opacity != 255 { colours[index] = UInt8(min(255, 255 * Int(colours[index]) / opacity)) }
    }
    return Picture(width: newWidth, height: newHeight, pixels: colours, alpha: newAlpha)
  }
}

/// Which pixel's centre is nearest to each new centre. The sum is made step by step since its rounding decides on ties.
private func nearestIndices(from size: Int, to newSize: Int) -> [Int] {
  let step = Double(size) / Double(newSize)
  var position = step * 0.5
  return (0..<newSize).map { _ in
    defer { position += step }
    return min(Int(position), size - 1)
  }
}

/// Weights that turn a line of pixels into one of another length, in fixed point.
private struct Resampling {
  struct Window {
    let start: Int
    let weights: [Int32]
  }

  /// 8 bits for the pixel and 2 for overshooting are left of 32.
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

  /// Each row of `width` pixels of so many channels becomes one of `windows.count` pixels.
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

  /// The rows of so many values each become `windows.count` rows.
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
