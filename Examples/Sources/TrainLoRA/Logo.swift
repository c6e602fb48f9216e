import ImageFiles
import LatentDiffusionTraining

/// A thing that no model has seen: a violet hexagon with a yellow bolt, a little larger or smaller and a little off the middle each time.
struct Logo {
  /// From the middle of the picture to a corner of the hexagon, as a part of the picture's width.
  let radius: Double
  /// The middle, 0…1.
  let x: Double, y: Double

  /// As many as are wanted, always the same.
  static func variants(_ count: Int) -> [Logo] {
    var generator = TorchGenerator(seed: 7)
    return (0..<count).map { _ in
      let numbers = generator.uniform(3).map(Double.init)
      return Logo(radius: 0.36 + 0.06 * numbers[0], x: 0.48 + 0.04 * numbers[1], y: 0.48 + 0.04 * numbers[2])
    }
  }

  /// The picture, each pixel the mean of 16 places.
  func picture(side: Int) -> Picture {
    var pixels: [UInt8] = []
    for row in 0..<side {
      for column in 0..<side {
        var sum = [0.0, 0.0, 0.0]
        for place in 0..<16 {
          let u = (Double(column) + (Double(place % 4) + 0.5) / 4) / Double(side)
          let v = (Double(row) + (Double(place / 4) + 0.5) / 4) / Double(side)
          for (index, value) in color((u - x) / radius, (v - y) / radius).enumerated() { sum[index] += value / 16 }
        }
        pixels += sum.map { UInt8($0.rounded()) }
      }
    }
    return Picture(width: side, height: side, pixels: pixels)
  }

  /// The colour at a place, measured in radii from the middle.
  private func color(_ u: Double, _ v: Double) -> [Double] {
    // A regular hexagon with a corner at the top.
    guard abs(u) <= 0.866, abs(v) + abs(u) * 0.577 <= 1 else { return [255, 255, 255] }
    let bolt: [(Double, Double)] = [(0.15, -0.7), (-0.4, 0.1), (-0.05, 0.1), (-0.15, 0.7), (0.4, -0.12), (0.05, -0.12)]
    return Self.isInside(bolt, u, v) ? [255, 214, 10] : [94, 43, 190]
  }

  /// Whether a ray from the place crosses the outline an odd number of times.
  private static func isInside(_ outline: [(Double, Double)], _ u: Double, _ v: Double) -> Bool {
    var isInside = false
    for (a, b) in zip(outline, outline.dropFirst() + outline.prefix(1)) where (a.1 > v) != (b.1 > v) {
      if u < (b.0 - a.0) * (v - a.1) / (b.1 - a.1) + a.0 { isInside.toggle() }
    }
    return isInside
  }
}
