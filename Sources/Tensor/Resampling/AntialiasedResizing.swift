extension Tensor {
  /// Pictures at another size, blurred as much as they shrink and then interpolated by cubic convolution with aligned corners: `[N, H, W, C]` →
  /// `[N, height, width, C]`. Lines are mirrored at their ends for the blur. Source: `_resize_with_antialiasing` of diffusers' Stable Video Diffusion.
  /// - Precondition: rank 4, no empty picture, sides above 1.
  public func resizedWithAntialiasing(height: Int, width: Int) -> Tensor {
    precondition(shape.rank == 4 && count > 0 && height > 1 && width > 1, "\(shape) cannot be resized to \(height)×\(width).")
    let tall = mixed(MixedLine(resizing: shape[1], to: height), blocks: shape[0], stride: shape[2] * shape[3])
    return tall.mixed(MixedLine(resizing: shape[2], to: width), blocks: shape[0] * height, stride: shape[3])
      .reshaped([shape[0], height, width, shape[3]])
  }
}

extension MixedLine {
  /// A line that is blurred as much as it shrinks, then interpolated: both filters are linear, so they are one.
  fileprivate init(resizing length: Int, to newLength: Int) {
    let blur = Self.blur(factor: Double(length) / Double(newLength)), radius = blur.count / 2
    let step = Float(length - 1) / Float(newLength - 1)
    let pixels = (0..<newLength).map { index in
      let place = Float(index) * step, first = Int(place.rounded(.down)) - 1
      var weights: [Int: Float] = [:]
      for (offset, cubic) in cubicWeights(place - place.rounded(.down)).enumerated() {
        let centre = min(max(first + offset, 0), length - 1)
        for (tap, weight) in blur.enumerated() where weight != 0 {
          weights[mirrored(centre + tap - radius, length), default: 0] += cubic * weight
        }
      }
      return weights.sorted { $0.key < $1.key }.map { (place: $0.key, weight: $0.value) }
    }
    self.init(length: length, pixels: pixels)
  }

  /// - Parameter factor: how many times as long the line is as it will be.
  private static func blur(factor: Double) -> [Float] {
    let sigma = max((factor - 1) / 2, 0.001)
    return gaussian(size: Int(max(4 * sigma, 3)) | 1, deviation: Float(sigma))
  }
}
