import LatentDiffusionComponents

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

    mutating func seed() -> NoiseSeed {
      let start = first.seed()
      guard let end = second?.seed() else { return NoiseSeed(start) }
      return NoiseSeed(start, end, position: position)
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
  mutating func seeds() -> [NoiseSeed] { rows.indices.map { rows[$0].seed() } }
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
