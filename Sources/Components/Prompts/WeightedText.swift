/// A part of a prompt, and how much it counts.
public struct WeightedText: Sendable, Hashable {
  /// Without the marks of the grammar.
  public var text: String
  /// 1 for text without marks.
  public var weight: Double

  /// - Parameters:
  ///   - text: without the marks of the grammar.
  ///   - weight: 1 for text without marks.
  public init(_ text: String, weight: Double = 1) { (self.text, self.weight) = (text, weight) }

  /// What stands where the next text begins a chunk of its own (`BREAK`).
  public static let chunkBreak = WeightedText("BREAK", weight: -1)
  /// Whether the next text begins a chunk of its own.
  public var isChunkBreak: Bool { self == .chunkBreak }
}
