import Tensor

/// What a generation's passes share: the short cuts that they may take, and what one leaves for the next.
///
/// A value that belongs to its generation: a copy is a checkpoint, and two generations share nothing.
public struct PassMemory: Sendable {
  /// The same for all passes.
  public let shortcuts: Shortcuts
  /// Of all that is random in the short cuts.
  public let seed: UInt64
  /// Passes that have been run: 0 before the first.
  public private(set) var passes = 0
  private var features: Tensor?
  private var text: (states: Tensor, projected: [String: Tensor])?

  /// - Parameters:
  ///   - shortcuts: none by default.
  ///   - seed: of all that is random in them.
  public init(_ shortcuts: Shortcuts = Shortcuts(), seed: UInt64 = 0) {
    self.shortcuts = shortcuts
    self.seed = seed
  }

  /// Of all that is random in the next pass: the memory's for the first, another for each.
  public var passSeed: UInt64 { seed &+ UInt64(passes) &* 0xD1B5_4A32_D192_ED03 }

  /// What the next pass takes in place of its deep features, in whatever shape the predictor kept it; nil where it is to be whole.
  public var deepFeatures: Tensor? {
    guard let caching = shortcuts.stepCaching, !passes.isMultiple(of: max(caching.interval, 1)) else { return nil }
    return features
  }

  /// What layers that see nothing but the text made of it, by their names, where a pass before has kept it of this very tensor.
  public func projections(of states: Tensor) -> [String: Tensor]? {
    text.flatMap { $0.states.isIdentical(to: states) ? $0.projected : nil }
  }

  /// Keeps what layers made of a text for the passes that are to come.
  public mutating func keep(_ projected: [String: Tensor], projectedFrom states: Tensor) { text = (states, projected) }

  /// Notes that a pass is over.
  /// - Parameter features: the deep features of a whole pass; of one that reused them, those again.
  public mutating func endPass(keeping features: Tensor? = nil) {
    self.features = features
    passes += 1
  }
}
