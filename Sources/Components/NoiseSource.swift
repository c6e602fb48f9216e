import Tensor

/// A stream of standard normal numbers. A value: a copy draws the same numbers again, and so does what was encoded and decoded.
public protocol NoiseSource: Sendable, Codable {
  /// The next `count` numbers, in the order in which the original generator fills a tensor.
  mutating func normal(_ count: Int) -> [Float]
  /// The numbers from 0 to below `count` in a random order. Without an implementation, that of as many normal numbers.
  mutating func permutation(_ count: Int) -> [Int]
}

extension NoiseSource {
  public mutating func permutation(_ count: Int) -> [Int] {
    normal(count).enumerated().sorted { ($0.element, $0.offset) < ($1.element, $1.offset) }.map(\.offset)
  }
}

extension NoiseSource {
  /// Noise for latents `[N, h, w, C]`, drawn in the order `[N, C, h, w]` in which PyTorch fills them; for those of clips, `[N, F, h, w, C]`, in the order
  /// `[N, C, F, h, w]`.
  public mutating func normal(channelsLast shape: Shape) -> Tensor {
    let drawn = Tensor(normal(shape.count), shape: Shape([shape[0], shape.columns] + shape.dimensions.dropFirst().dropLast()))
    return drawn.permuted([0] + (2..<shape.rank) + [1])
  }
}

extension TorchGenerator: NoiseSource {}
extension PhiloxGenerator: NoiseSource {}
extension NumPyGenerator: NoiseSource {}
