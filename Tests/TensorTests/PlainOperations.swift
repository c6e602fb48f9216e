import Foundation
import Tensor

/// The operations as their formulas say, one number after the other in float64: slow, and plainly right.
enum Plain {
  /// `[N, H, W, ΣC]` by `[O, ΣC, kh, kw]`.
  static func convolution(_ input: Tensor, _ weights: Tensor, _ geometry: ConvolutionGeometry) -> Tensor {
    let (n, h, w, c) = (input.shape[0], input.shape[1], input.shape[2], input.shape[3])
    let (kh, kw, padding) = (geometry.kernelHeight, geometry.kernelWidth, geometry.padding)
    let outputs = weights.shape[0]
    let height = (h + padding.top + padding.bottom - kh) / geometry.stride + 1
    let width = (w + padding.left + padding.right - kw) / geometry.stride + 1
    let x = input.elements, taps = weights.permuted([2, 3, 1, 0]).elements
    var result = [Double](repeating: 0, count: n * height * width * outputs)
    for place in 0..<n * height * width {
      let (image, row, column) = (place / (height * width), place / width % height, place % width)
      for i in 0..<kh {
        for j in 0..<kw {
          let (y, z) = (row * geometry.stride + i - padding.top, column * geometry.stride + j - padding.left)
          guard y >= 0, y < h, z >= 0, z < w else { continue }
          for channel in 0..<c {
            let value = Double(x[((image * h + y) * w + z) * c + channel])
            let first = ((i * kw + j) * c + channel) * outputs
            for o in 0..<outputs { result[place * outputs + o] += value * Double(taps[first + o]) }
          }
        }
      }
    }
    return Tensor(result.map { Float($0) }, shape: [n, height, width, outputs])
  }

  /// `[R, K]` by `[M, K]`.
  static func product(_ input: Tensor, _ weights: Tensor) -> Tensor {
    let (rows, k, m) = (input.shape.rows, input.shape.columns, weights.shape[0])
    let x = input.elements, transposed = weights.permuted([1, 0]).elements
    var result = [Float]()
    for row in 0..<rows {
      var sums = [Double](repeating: 0, count: m)
      for i in 0..<k {
        let value = Double(x[row * k + i])
        for o in 0..<m { sums[o] += value * Double(transposed[i * m + o]) }
      }
      result += sums.map { Float($0) }
    }
    return Tensor(result, shape: Shape(input.shape.dimensions.dropLast() + [m]))
  }

  static func attention(_ queries: Tensor, _ keys: Tensor, _ values: Tensor, heads: Int, scale: Float, causal: Bool) -> Tensor {
    let (n, l, s, columns) = (queries.shape[0], queries.shape[1], keys.shape[1], queries.shape[2])
    let width = columns / heads
    let (q, k, v) = (queries.elements, keys.elements, values.elements)
    var result = [Float](repeating: 0, count: q.count)
    for (image, head, row) in (0..<n * heads * l).map({ ($0 / l / heads, $0 / l % heads, $0 % l) }) {
      let query = (image * l + row) * columns + head * width
      let visible = causal ? min(s, row + 1) : s
      let scores = (0..<visible).map { key -> Double in
        let start = (image * s + key) * columns + head * width
        return Double(scale) * (0..<width).reduce(0.0) { $0 + Double(q[query + $1]) * Double(k[start + $1]) }
      }
      let top = scores.max() ?? 0
      let exponentials = scores.map { exp($0 - top) }
      let total = exponentials.reduce(0, +)
      for i in 0..<width {
        let sum = (0..<visible).reduce(0.0) { $0 + exponentials[$1] * Double(v[(image * s + $1) * columns + head * width + i]) }
        result[query + i] = Float(sum / total)
      }
    }
    return Tensor(result, shape: queries.shape)
  }

  /// `[N, …, C]`.
  static func groupNorm(_ input: Tensor, groups: Int, epsilon: Float, weight: Tensor, bias: Tensor) -> Tensor {
    let (n, c) = (input.shape[0], input.shape.columns)
    let (pixels, width) = (input.shape.rows / n, c / groups)
    let (x, w, b) = (input.elements, weight.elements, bias.elements)
    var result = x
    for (image, group) in (0..<n * groups).map({ ($0 / groups, $0 % groups) }) {
      let places = (0..<pixels * width).map { (image * pixels + $0 / width) * c + group * width + $0 % width }
      let mean = places.reduce(0.0) { $0 + Double(x[$1]) } / Double(places.count)
      let variance = places.reduce(0.0) { $0 + (Double(x[$1]) - mean) * (Double(x[$1]) - mean) } / Double(places.count)
      for place in places {
        let normal = (Double(x[place]) - mean) / (variance + Double(epsilon)).squareRoot()
        result[place] = Float(normal * Double(w[place % c]) + Double(b[place % c]))
      }
    }
    return Tensor(result, shape: input.shape)
  }

  static func nearest(_ input: Tensor, height: Int, width: Int) -> Tensor {
    let rows = input.permuted([1, 2, 0, 3])
    // Integers only, where PyTorch multiplies by a float: the same for whole factors.
    let picked = Tensor.concatenated(
      (0..<height).map { rows.rows($0 * input.shape[1] / height..<$0 * input.shape[1] / height + 1) }, axis: 0)
    let turned = picked.permuted([1, 0, 2, 3])
    let both = Tensor.concatenated((0..<width).map { turned.rows($0 * input.shape[2] / width..<$0 * input.shape[2] / width + 1) }, axis: 0)
    return both.permuted([2, 1, 0, 3])
  }
}
