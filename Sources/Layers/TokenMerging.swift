import Tensor

/// Merges tokens of a feature map during self-attention, whose arithmetic grows with the square of the number of tokens.
///
/// In each square of four pixels one, chosen at random, is a destination. Of the other pixels, those most similar to a destination are
/// merged into it. Source: Bolya and Hoffman 2023, "Token Merging for Fast Stable Diffusion" (arXiv:2303.17604).
public struct TokenMerging: Sendable {
  /// The share of the tokens that is merged into others, 0…0.75.
  public let ratio: Double
  /// The seed of the choice of destinations, which is the same for all maps of a size.
  public let seed: UInt64

  private static let side = 2

  /// - Parameters:
  ///   - ratio: the share of the tokens that is merged into others, 0…0.75; larger values merge no more.
  ///   - seed: of the choice of destinations.
  public init(ratio: Double, seed: UInt64) {
    self.ratio = ratio
    self.seed = seed
  }

  /// The part that depends only on a map's size.
  public struct Choice: Sendable {
    /// The row-major index of one pixel of each whole square, ascending. Pixels outside of whole squares are no destinations.
    public let destinations: [Int]
    /// Tokens to merge.
    public let count: Int

    /// - Parameter tokens: `[N, height · width, C]`, which are compared with each other.
    /// - Throws: `CancellationError`.
    func merge(_ tokens: Tensor, in context: ExecutionContext) throws -> TokenMerge {
      try TokenMerge(tokens, into: destinations, count: count, in: context)
    }
  }

  /// The choice for a map of `height` rows of `width` pixels; nil if nothing would be merged.
  public func choice(height: Int, width: Int) -> Choice? {
    let (rows, columns) = (height / Self.side, width / Self.side)
    let count = Int(Double(height * width) * min(max(ratio, 0), 1))
    guard count > 0, rows * columns > 0 else { return nil }
    var state = seed
    let destinations = (0..<rows * columns).map { square in
      let place = Int(Self.next(&state) % UInt64(Self.side * Self.side))
      let (y, x) = (square / columns * Self.side + place / Self.side, square % columns * Self.side + place % Self.side)
      return y * width + x
    }
    return Choice(destinations: destinations.sorted(), count: count)
  }

  /// SplitMix64: small, and the same everywhere.
  private static func next(_ state: inout UInt64) -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
