import Foundation

/// What each pixel of a line is mixed of after a linear filter.
struct MixedLine {
  /// Of the line before.
  let length: Int
  let pixels: [[(place: Int, weight: Float)]]

  init(length: Int, pixels: [[(place: Int, weight: Float)]]) { (self.length, self.pixels) = (length, pixels) }

  /// A line of the same length, of which each pixel is a sum over those around it. Beyond its ends the line is mirrored.
  /// - Parameter weights: an odd number, of which the middle one belongs to the pixel itself.
  init(blurring length: Int, by weights: [Float]) {
    let pixels = (0..<length).map { index in
      weights.enumerated().map { (place: mirrored(index + $0 - weights.count / 2, length), weight: $1) }
    }
    self.init(length: length, pixels: pixels)
  }

  /// The weights of a Gaussian blur.
  /// - Parameters:
  ///   - size: how many, an odd number.
  ///   - deviation: in pixels.
  static func gaussian(size: Int, deviation: Float) -> [Float] {
    let weights = (0..<size).map { index in
      let x = Float(index - size / 2)
      return exp(-x * x / (2 * deviation * deviation))
    }
    let sum = weights.reduce(0, +)
    return weights.map { $0 / sum }
  }
}

/// A place beyond an end of a line as its mirror image; the pixel at the end is not repeated.
package func mirrored(_ place: Int, _ length: Int) -> Int {
  guard length > 1 else { return 0 }
  let period = 2 * (length - 1), inside = (place % period + period) % period
  return inside < length ? inside : period - inside
}

extension Tensor {
  /// `[blocks, size, stride]` → `[blocks, newSize, stride]`.
  func mixed(_ line: MixedLine, blocks: Int, stride: Int) -> Tensor {
    let result = Tensor(shape: [blocks, line.pixels.count, stride]), (source, target) = (pointer, result.mutablePointer)
    for block in 0..<blocks {
      for (index, parts) in line.pixels.enumerated() {
        let to = target + (block * line.pixels.count + index) * stride
        for (place, weight) in parts {
          let from = source + (block * line.length + place) * stride
          for i in 0..<stride { to[i] += weight * from[i] }
        }
      }
    }
    return result
  }

  /// Pictures with a Gaussian blur: `[N, H, W, C]` → the same shape. Lines are mirrored at their ends.
  ///
  /// - Parameters:
  ///   - size: pixels of the blur along each side, an odd number.
  ///   - deviation: in pixels.
  /// - Precondition: rank 4.
  package func blurred(size: Int, deviation: Float) -> Tensor {
    precondition(shape.rank == 4, "\(shape) is no picture.")
    let weights = MixedLine.gaussian(size: size, deviation: deviation), channels = shape[3]
    return mixed(MixedLine(blurring: shape[1], by: weights), blocks: shape[0], stride: shape[2] * channels)
      .mixed(MixedLine(blurring: shape[2], by: weights), blocks: shape[0] * shape[1], stride: channels).reshaped(shape)
  }
}
