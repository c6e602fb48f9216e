import Tensor

/// What a generation's passes share: the short cuts that they may take, and what one leaves for the next.
///
/// It is a value that belongs to one generation, so a copy is a checkpoint. Only the predictor reads and writes what is kept.
public struct PassMemory: Sendable {
  /// The same for all passes.
  public let shortcuts: Shortcuts
  /// Of all that is random in the short cuts.
  public let seed: UInt64
  /// Passes that have been run: 0 before the first.
  public private(set) var passes: Int
  /// The step of the generation whose pass is next, from 0; as many as `passes` where every step had one.
  public var step: Int
  /// What later passes need of earlier ones, under names of the predictor. It belongs to a generation's place, and is saved with it.
  public var kept: [String: Tensor]
  /// What the predictor can compute again, of a type of its own; it is not saved.
  public var cache: (any Sendable)?
  /// `[k · N, H, W, 1]`: how much attention each pixel got of all in the self-attention of the predictor's middle, 1 in the mean. The last pass left it,
  /// where the predictor was asked for it (`PredictorChange.toldAttention`). It is not saved.
  public var attention: Tensor?

  /// - Parameters:
  ///   - shortcuts: none by default.
  ///   - seed: of all that is random in them.
  ///   - passes: that have been run already.
  ///   - kept: what they left.
  public init(_ shortcuts: Shortcuts = Shortcuts(), seed: UInt64 = 0, passes: Int = 0, kept: [String: Tensor] = [:]) {
    (self.shortcuts, self.seed, self.passes, self.kept) = (shortcuts, seed, passes, kept)
    step = passes
  }

  /// Of all that is random in the next pass: the memory's for the first, another for each.
  public var passSeed: UInt64 { seed &+ UInt64(passes) &* 0xD1B5_4A32_D192_ED03 }

  /// Whether the next pass reuses what a whole one left, as step caching says.
  public var reusesFeatures: Bool { shortcuts.stepCaching.map { !passes.isMultiple(of: max($0.interval, 1)) } ?? false }

  /// How many skips the next pass computes before it takes the deep features; nil: all, since it is a whole one.
  public var computedSkips: Int? { reusesFeatures ? shortcuts.stepCaching.map { $0.branch + 1 } : nil }

  /// Notes that a pass is over.
  public mutating func endPass() {
    passes += 1
    step += 1
  }
}
