import Tensor

/// A text as layers attend to it.
public struct TextStates: Sendable {
  /// `[N, L, D]`.
  public let states: Tensor
  /// Projections that depend on the text alone, by name (`….attn2.to_k`). They are the same in every pass of a generation.
  public internal(set) var projected: [String: Tensor]

  /// - Parameter projected: the projections that are known already.
  public init(_ states: Tensor, projected: [String: Tensor] = [:]) {
    self.states = states
    self.projected = projected
  }

  /// The states of some of the texts.
  /// - Throws: what the engine throws.
  public func rows(_ range: Range<Int>, in context: ExecutionContext) throws -> TextStates {
    TextStates(try states.rows(range, in: context), projected: try projected.mapValues { try $0.rows(range, in: context) })
  }
}
