extension Tensor {
  /// Pictures at another size by cubic convolution, as PyTorch's `interpolate` with mode `bicubic` and without aligned corners: `[N, H, W, C]` →
  /// `[N, height, width, C]`. Pixels beyond the edge are those of the edge. The filter is not widened where a picture shrinks.
  ///
  /// Source: Keys 1981, "Cubic convolution interpolation for digital image processing", with a = -0.75.
  /// - Precondition: rank 4, no empty picture, positive sides.
  public func interpolatedBicubic(height: Int, width: Int) -> Tensor {
    precondition(shape.rank == 4 && count > 0 && height > 0 && width > 0, "\(shape) cannot be interpolated to \(height)×\(width).")
    let tall = interpolated(blocks: shape[0], from: shape[1], to: height, stride: shape[2] * shape[3])
    return tall.reshaped([shape[0], height, shape[2], shape[3]]).interpolated(
      blocks: shape[0] * height, from: shape[2], to: width, stride: shape[3]
    ).reshaped([shape[0], height, width, shape[3]])
  }

  /// `[blocks, size, stride]` → `[blocks, newSize, stride]`.
  private func interpolated(blocks: Int, from size: Int, to newSize: Int, stride: Int) -> Tensor {
    let result = Tensor(shape: [blocks, newSize, stride])
    let (source, target) = (pointer, result.mutablePointer)
    for index in 0..<newSize {
      let place = (Float(index) + 0.5) * (Float(size) / Float(newSize)) - 0.5
      let first = Int(place.rounded(.down)) - 1
      for (offset, weight) in cubicWeights(place - place.rounded(.down)).enumerated() {
        let row = min(max(first + offset, 0), size - 1)
        for block in 0..<blocks {
          let (from, to) = (source + (block * size + row) * stride, target + (block * newSize + index) * stride)
          for i in 0..<stride { to[i] += weight * from[i] }
        }
      }
    }
    return result
  }
}

/// The weights of the four neighbours of a place that is t after the second one.
func cubicWeights(_ t: Float) -> [Float] {
  let a: Float = -0.75
  func near(_ x: Float) -> Float { ((a + 2) * x - (a + 3)) * x * x + 1 }
  func far(_ x: Float) -> Float { ((a * x - 5 * a) * x + 8 * a) * x - 4 * a }
  return [far(t + 1), near(t), near(1 - t), far(2 - t)]
}
