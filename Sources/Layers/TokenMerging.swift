import Tensor

/// Merges tokens of a feature map for the time of a self-attention, whose arithmetic grows with the square of their number.
///
/// In each square of four pixels one, chosen at random, is a destination; of the others, those that are the most like a destination are
/// merged into it. Source: Bolya and Hoffman 2023, "Token Merging for Fast Stable Diffusion" (arXiv:2303.17604).
public struct TokenMerging: Sendable {
  /// The part of the tokens that is merged into others, 0…0.75.
  public let ratio: Double
  /// Of the choice of destinations: the same for all maps of a size.
  public let seed: UInt64

  private static let side = 2

  /// - Parameters:
  ///   - ratio: the part of the tokens that is merged into others, 0…0.75; of more, no more are merged.
  ///   - seed: of the choice of destinations.
  public init(ratio: Double, seed: UInt64) {
    self.ratio = ratio
    self.seed = seed
  }

  /// What a map's size decides.
  public struct Choice: Sendable {
    /// One pixel of each whole square, ascending, counted row by row; pixels beside the squares are none.
    public let destinations: [Int]
    /// Tokens to merge.
    public let count: Int

    /// - Parameter tokens: `[N, height · width, C]`, which are compared.
    /// - Throws: `CancellationError`.
    func merge(_ tokens: Tensor, in context: ExecutionContext) throws -> TokenMerge {
      try TokenMerge(tokens, into: destinations, count: count, in: context)
    }
  }

  /// What is chosen in a map of `height` rows of `width` pixels; nil where nothing would be merged.
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
