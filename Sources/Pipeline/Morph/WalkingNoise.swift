import Foundation
import LatentDiffusionComponents
import Tensor

/// The noise of pictures that lie between two seeds each: what is drawn for all pictures together has a part for each, as latents `[N, C, h, w]` have.
struct WalkingNoise<Source: NoiseSource>: NoiseSource {
  /// The noise of one picture.
  struct Row: Codable, Sendable {
    var first: Source
    /// Nil where both seeds are the same.
    var second: Source?
    let position: Double

    mutating func normal(_ count: Int) -> [Float] {
      let start = first.normal(count)
      guard let end = second?.normal(count) else { return start }
      return sphericalInterpolation(from: start, to: end, at: position)
    }
  }
  var rows: [Row]

  mutating func normal(_ count: Int) -> [Float] {
    // What is not drawn for all pictures is the first one's.
    guard count.isMultiple(of: rows.count) else { return rows[0].normal(count) }
    return rows.indices.flatMap { rows[$0].normal(count / rows.count) }
  }

  mutating func permutation(_ count: Int) -> [Int] { rows[0].first.permutation(count) }
  mutating func seed() -> UInt64 { rows[0].first.seed() }
  mutating func seeds() -> [UInt64] { rows.indices.map { rows[$0].first.seed() } }
}

/// - Parameter seeds: for each picture its two seeds, and the part of the way from the first to the second.
func walkingNoise(_ seeds: [(UInt64, UInt64, Double)], _ generator: @Sendable (UInt64) -> any NoiseSource) -> any NoiseSource {
  /// A generator makes sources of one type; one that does not is taken for the first seed's.
  func walking<Source: NoiseSource>(_ example: Source) -> any NoiseSource {
    func source(_ seed: UInt64) -> Source { generator(seed) as? Source ?? example }
    return WalkingNoise(
      rows: seeds.map { first, second, position in
        // The ends are the seeds' own noise to the last bit.
        if first == second || position == 0 { return .init(first: source(first), second: nil, position: 0) }
        if position == 1 { return .init(first: source(second), second: nil, position: 0) }
        return .init(first: source(first), second: source(second), position: position)
      })
  }
  return walking(generator(seeds[0].0))
}

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
