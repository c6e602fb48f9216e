import Tensor

/// A stream of standard normal numbers. A value: a copy draws the same numbers again, and so does what was encoded and decoded.
public protocol NoiseSource: Sendable, Codable {
  /// The next `count` numbers, in the order in which the original generator fills a tensor.
  mutating func normal(_ count: Int) -> [Float]
  /// The numbers from 0 to below `count` in a random order. Without an implementation, that of as many normal numbers.
  mutating func permutation(_ count: Int) -> [Int]
  /// The seed of another source, below 2⁶³. Without an implementation, it follows from two normal numbers.
  mutating func seed() -> UInt64
  /// The same: one for all pictures, or one for each. Without an implementation, one.
  mutating func seeds() -> [NoiseSeed]
}

/// What noise follows from: a seed, or a place between two, whose noise lies between theirs.
public struct NoiseSeed: Sendable, Hashable, Codable {
  /// The seed, or the first of two.
  public let first: UInt64
  /// Nil: there is one alone.
  public let second: UInt64?
  /// The part of the way from the first to the second, 0…1.
  public let position: Double

  /// A seed.
  public init(_ seed: UInt64) { (first, second, position) = (seed, nil, 0) }

  /// A place between two seeds.
  public init(_ first: UInt64, _ second: UInt64, position: Double) { (self.first, self.second, self.position) = (first, second, position) }
}

extension NoiseSource {
  public mutating func permutation(_ count: Int) -> [Int] {
    normal(count).enumerated().sorted { ($0.element, $0.offset) < ($1.element, $1.offset) }.map(\.offset)
  }

  public mutating func seeds() -> [NoiseSeed] { [NoiseSeed(seed())] }

  public mutating func seed() -> UInt64 { normal(2).reduce(0) { $0 << 32 | UInt64($1.bitPattern) } & UInt64(Int.max) }
}

extension NoiseSource {
  /// Noise for latents `[N, h, w, C]`, drawn in the order `[N, C, h, w]` in which PyTorch fills them; for those of clips, `[N, F, h, w, C]`, in the order
  /// `[N, C, F, h, w]`.
  public mutating func normal(channelsLast shape: Shape) -> Tensor {
    let drawn = Tensor(normal(shape.count), shape: Shape([shape[0], shape.columns] + shape.dimensions.dropFirst().dropLast()))
    return drawn.permuted([0] + (2..<shape.rank) + [1])
  }
}

extension TorchGenerator: NoiseSource {
  /// `torch.randint(0, 2**63 - 1, [])`.
  public mutating func seed() -> UInt64 { UInt64(integers(1, below: .max)[0]) }
}
extension PhiloxGenerator: NoiseSource {}
extension NumPyGenerator: NoiseSource {}
