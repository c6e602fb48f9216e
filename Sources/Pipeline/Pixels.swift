import Foundation
import Tensor

/// What tasks do to pictures `[N, H, W, C]` before and after the loop.
extension Tensor {
  /// A picture of another size, each of its pixels read from the pixel that `source` names.
  private func gathered(height: Int, width: Int, from source: (_ y: Int, _ x: Int) -> (Int, Int)) -> Tensor {
    let (oldHeight, oldWidth, channels) = (shape[1], shape[2], shape[3])
    let elements = elements
    var result: [Float] = []
    result.reserveCapacity(shape[0] * height * width * channels)
    for n in 0..<shape[0] {
      for y in 0..<height {
        for x in 0..<width {
          let (fromY, fromX) = source(y, x)
          let start = ((n * oldHeight + fromY) * oldWidth + fromX) * channels
          result.append(contentsOf: elements[start..<start + channels])
        }
      }
    }
    return Tensor(result, shape: [shape[0], height, width, channels])
  }

  /// The picture with borders that repeat its outermost pixels.
  func extended(left: Int, right: Int, top: Int, bottom: Int) -> Tensor {
    gathered(height: shape[1] + top + bottom, width: shape[2] + left + right) {
      (min(max($0 - top, 0), shape[1] - 1), min(max($1 - left, 0), shape[2] - 1))
    }
  }

  /// The upper left part of the picture.
  func cropped(height: Int, width: Int) -> Tensor {
    height == shape[1] && width == shape[2] ? self : gathered(height: height, width: width) { ($0, $1) }
  }

  /// The upper left pixel of every square of `side` pixels, which is what `interpolate` with mode `nearest` takes.
  func sampled(every side: Int) -> Tensor {
    gathered(height: shape[1] / side, width: shape[2] / side) { ($0 * side, $1 * side) }
  }

  /// The mean of every square of `side` pixels.
  func averaged(over side: Int) -> Tensor {
    let sum = (0..<side * side).reduce(Tensor(shape: [shape[0], shape[1] / side, shape[2] / side, shape[3]])) { sum, offset in
      sum + gathered(height: shape[1] / side, width: shape[2] / side) { ($0 * side + offset / side, $1 * side + offset % side) }
    }
    return sum / Float(side * side)
  }

  /// 1 from 0.5 up, 0 below.
  func binarized() -> Tensor { map { $0 < 0.5 ? 0 : 1 } }

  /// The only channel `count` times.
  func channelRepeated(_ count: Int) -> Tensor { Tensor.concatenated(Array(repeating: self, count: count), axis: -1) }

  /// The picture at another size, by Lanczos' filter over three lobes, widened where the picture shrinks; rows first, each pass
  /// clamped to 0…1, as Pillow does it, but not rounded.
  func resampled(height: Int, width: Int) -> Tensor {
    guard height != shape[1] || width != shape[2] else { return self }
    // Rows and columns apart: the one pass works on the second axis, so the picture is turned for the other.
    let wide = resampledColumns(width)
    return wide.permuted([0, 2, 1, 3]).resampledColumns(height).permuted([0, 2, 1, 3])
  }

  private func resampledColumns(_ width: Int) -> Tensor {
    guard width != shape[2] else { return self }
    let (oldWidth, channels) = (shape[2], shape[3])
    let taps = lanczosTaps(from: oldWidth, to: width)
    let elements = elements
    var result: [Float] = []
    result.reserveCapacity(shape[0] * shape[1] * width * channels)
    for row in 0..<shape[0] * shape[1] {
      for tap in taps {
        for channel in 0..<channels {
          var sum: Float = 0
          for (offset, weight) in tap.weights.enumerated() {
            sum += weight * elements[(row * oldWidth + tap.first + offset) * channels + channel]
          }
          result.append(sum)
        }
      }
    }
    return Tensor(result, shape: [shape[0], shape[1], width, channels]).clamped(to: 0...1)
  }
}

/// For each new pixel the first old one that it is made of, and the weights from there on, which sum up to 1.
private func lanczosTaps(from old: Int, to new: Int) -> [(first: Int, weights: [Float])] {
  func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(.pi * x) / (.pi * x) }
  let scale = Double(old) / Double(new)
  let stretch = max(scale, 1)
  return (0..<new).map { pixel in
    let center = (Double(pixel) + 0.5) * scale
    let first = max(0, Int(center - 3 * stretch + 0.5))
    let last = min(old, Int(center + 3 * stretch + 0.5))
    let weights = (first..<last).map { source -> Double in
      let distance = (Double(source) + 0.5 - center) / stretch
      return abs(distance) < 3 ? sinc(distance) * sinc(distance / 3) : 0
    }
    let sum = weights.reduce(0, +)
    return (first, weights.map { Float($0 / sum) })
  }
}
