/// A Gaussian blur as three blurs by a box, whose two outermost pixels count in part. Pixels beyond an edge are like the one at the edge.
///
/// It is an approximation, and the one that pictures are compared with: the same values as Pillow's `ImageFilter.GaussianBlur`.
/// Source: Gwosdek, Grewenig, Bruhn and Weickert, "Theoretical foundations of Gaussian convolution by extended box filtering", 2011.
struct BoxBlur {
  private static let passes = 3
  /// Of the weights, which makes them whole numbers.
  private static let fractionBits = 24
  /// Pixels on either side that count in full.
  private let radius: Int
  private let weight: Int
  /// Of the pixel behind those, on either side.
  private let endWeight: Int

  /// - Parameter deviation: the standard deviation of the blur, in pixels; above 0.
  init(deviation: Float) {
    let variance = deviation * deviation / Float(Self.passes)
    let length = Float((12 * Double(variance) + 1).squareRoot()), whole = ((length - 1) / 2).rounded(.down)
    let part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) * (whole + 1)))
    let reach = whole + part, one = 1 << Self.fractionBits
    radius = Int(reach)
    weight = Int(Float(one) / (reach * 2 + 1))
    endWeight = (one - (2 * radius + 1) * weight) / 2
  }

  /// - Parameter pixels: of `[height, width, channels]`; each channel is blurred separately.
  func callAsFunction(_ pixels: [UInt8], width: Int, channels: Int) -> [UInt8] {
    func blurred(_ line: [Int]) -> [Int] { (0..<Self.passes).reduce(line) { line, _ in pass(line) } }
    return pixels.changingLines(.horizontal, width: width, channels: channels, blurred)
      .changingLines(.vertical, width: width, channels: channels, blurred)
  }

  private func pass(_ line: [Int]) -> [Int] {
    func pixel(_ index: Int) -> Int { line[min(max(index, 0), line.count - 1)] }
    // The sum of those that count in full, moved along the line from before its first pixel.
    var sum = (-radius - 1..<radius).reduce(0) { $0 + pixel($1) }
    return line.indices.map { index in
      let (before, after) = (pixel(index - radius - 1), pixel(index + radius))
      sum += after - before
      let ends = before + pixel(index + radius + 1)
      return (sum * weight + ends * endWeight + 1 << (Self.fractionBits - 1)) >> Self.fractionBits
    }
  }
}
