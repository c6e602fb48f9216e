import Foundation
import Tensor

/// What FreeU does to the inputs of a layer on the way up. Source: diffusers' `apply_freeu`.
struct SkipScaling: Sendable {
  /// For the first half of the channels that come from below.
  let backbone: Float
  /// For the lowest frequencies of what comes from the way down.
  let skip: Float

  /// - Parameters:
  ///   - x: `[N, H, W, C]`, from below.
  ///   - skip: `[N, H, W, D]`, from the way down.
  /// - Returns: tensors to be joined along channels: both halves of the first, and the second.
  /// - Throws: what the engine throws.
  func callAsFunction(_ x: Tensor, _ skip: Tensor, in context: ExecutionContext) throws -> [Tensor] {
    let half = x.shape.columns / 2
    return [
      try x.channels(0..<half).scaled(by: backbone, in: context), x.channels(half..<x.shape.columns),
      try skip.scalingLowest(by: self.skip, in: context),
    ]
  }
}

extension Tensor {
  /// The same maps `[N, H, W, C]` with their lowest frequencies, 0 and −1 along each side, times a factor. Source: diffusers' `fourier_filter` with a threshold
  /// of 1, which takes the real part of the result.
  ///
  /// The four frequencies are sums with a few cosines and sines, so there is no transform: x + (s − 1)/HW · B (Bᵀ x).
  fileprivate func scalingLowest(by factor: Float, in context: ExecutionContext) throws -> Tensor {
    let (height, width) = (shape[1], shape[2]), pixels = height * width
    let waves = Self.lowestWaves(height: height, width: width)
    func matrix(_ value: (Int, Int) -> Float, _ rows: Int, _ columns: Int) throws -> PackedMatrix {
      let values = (0..<rows).flatMap { row in (0..<columns).map { value(row, $0) } }
      return try PackedMatrix(WeightTensor(Tensor(values, shape: [rows, columns])), in: context)
    }
    let sums = try matrix({ waves[$0][$1] }, waves.count, pixels)
    let scale = (factor - 1) / Float(pixels)
    let change = try matrix({ scale * waves[$1][$0] }, pixels, waves.count)
    let maps = reshaped([shape[0], pixels, shape[3]]).permuted([0, 2, 1])
    return try maps.multiplied(by: sums, in: context).multiplied(by: change, adding: maps, in: context).permuted([0, 2, 1]).reshaped(shape)
  }

  /// The constant, and cosine and sine of each other frequency, `[H · W]` each. A side of one pixel has the frequency 0 alone.
  private static func lowestWaves(height: Int, width: Int) -> [[Float]] {
    var result: [[Float]] = []
    for (v, u) in [(0, 0), (0, 1), (1, 0), (1, 1)] where (v == 0 || height > 1) && (u == 0 || width > 1) {
      let angles = (0..<height * width).map { pixel in
        2 * Double.pi * (Double(v * (pixel / width)) / Double(height) + Double(u * (pixel % width)) / Double(width))
      }
      result.append(angles.map { Float(cos($0)) })
      if u + v > 0 { result.append(angles.map { Float(sin($0)) }) }
    }
    return result
  }
}
