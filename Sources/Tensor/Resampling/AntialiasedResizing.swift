import Foundation

extension Tensor {
  /// Pictures at another size, blurred as much as they shrink and then interpolated by cubic convolution with aligned corners: `[N, H, W, C]` →
  /// `[N, height, width, C]`. Lines are mirrored at their ends for the blur. Source: `_resize_with_antialiasing` of diffusers' Stable Video Diffusion.
  /// - Precondition: rank 4, no empty picture, sides above 1.
  public func resizedWithAntialiasing(height: Int, width: Int) -> Tensor {
    precondition(shape.rank == 4 && count > 0 && height > 1 && width > 1, "\(shape) cannot be resized to \(height)×\(width).")
    let tall = mixed(AntialiasedLine(from: shape[1], to: height), blocks: shape[0], stride: shape[2] * shape[3])
    return tall.mixed(AntialiasedLine(from: shape[2], to: width), blocks: shape[0] * height, stride: shape[3])
      .reshaped([shape[0], height, width, shape[3]])
  }

  /// `[blocks, size, stride]` → `[blocks, newSize, stride]`.
  private func mixed(_ line: AntialiasedLine, blocks: Int, stride: Int) -> Tensor {
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
}

/// What each pixel of a resized line is mixed of: both filters are linear, so they are one.
private struct AntialiasedLine {
  /// Of the line before.
  let length: Int
  let pixels: [[(place: Int, weight: Float)]]

  init(from length: Int, to newLength: Int) {
    self.length = length
    let blur = Self.blur(factor: Double(length) / Double(newLength)), radius = blur.count / 2
    let step = Float(length - 1) / Float(newLength - 1)
    pixels = (0..<newLength).map { index in
      let place = Float(index) * step, first = Int(place.rounded(.down)) - 1
      var weights: [Int: Float] = [:]
      for (offset, cubic) in cubicWeights(place - place.rounded(.down)).enumerated() {
        let centre = min(max(first + offset, 0), length - 1)
        for (tap, weight) in blur.enumerated() where weight != 0 {
          weights[mirrored(centre + tap - radius, length), default: 0] += cubic * weight
        }
      }
      return weights.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }
  }

  /// The weights of a Gaussian blur, an odd number.
  /// - Parameter factor: how many times as long the line is as it will be.
  private static func blur(factor: Double) -> [Float] {
    let sigma = max((factor - 1) / 2, 0.001), size = Int(max(4 * sigma, 3)) | 1, deviation = Float(sigma)
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
