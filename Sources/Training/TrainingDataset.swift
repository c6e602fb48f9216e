import Tensor

/// What is learnt from: batches by their numbers, from 0 on without an end.
///
/// A batch follows from the data, its number and a generator of its own. So a run can go on at any batch with the same bytes, and several machines can take
/// turns.
public protocol TrainingDataset<Batch>: Sendable {
  /// What a step learns from.
  associatedtype Batch: Sendable

  /// - Parameters:
  ///   - number: from 0 on.
  ///   - generator: draws what is random about this batch; another one for each number.
  /// - Throws: `CancellationError`, and what reading the data throws.
  mutating func batch(_ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext) throws -> Batch
}

extension TorchGenerator {
  /// The generator of a batch. Source: the mixing of Steele, Lea and Flood's SplitMix64, so that neighbours have nothing in common.
  ///
  /// - Parameters:
  ///   - seed: of the run.
  ///   - batch: its number.
  public init(seed: UInt64, batch: Int) {
    var z = seed &+ 0x9E37_79B9_7F4A_7C15 &* (UInt64(truncatingIfNeeded: batch) &+ 1)
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    self.init(seed: z ^ z >> 31)
  }
}
