import Foundation

/// Between two vectors on the arc of a great circle, so that noise stays as long as noise is; on a straight line where they point almost the same way.
/// Source: `slerp` of diffusers' community pipeline `interpolate_stable_diffusion`, with its threshold.
package func sphericalInterpolation(from start: [Float], to end: [Float], at position: Double) -> [Float] {
  let (lengths, product) = zip(start, end).reduce(into: (SIMD2<Double>.zero, 0.0)) { sums, pair in
    let (first, second) = (Double(pair.0), Double(pair.1))
    sums.0 += SIMD2(first * first, second * second)
    sums.1 += first * second
  }
  let cosine = product / (lengths.x * lengths.y).squareRoot()
  var weights = (1 - position, position)
  if abs(cosine) <= 0.9995 {
    let angle = acos(cosine)
    weights = (sin(angle * (1 - position)) / sin(angle), sin(angle * position) / sin(angle))
  }
  return zip(start, end).map { Float(weights.0) * $0 + Float(weights.1) * $1 }
}
