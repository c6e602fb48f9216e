import Tensor

/// The mean of the gradients of several small batches, which is the gradient of the batch that they make together.
public struct GradientAccumulation: Sendable {
  /// How many batches make one step.
  public let batches: Int
  private var sum: [Tensor] = []
  private var taken = 0

  /// - Parameter batches: how many make one step, from 1 up.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(batches: Int) throws(TrainingError) {
    guard batches > 0 else {
      throw .unusableSetting(name: "the number of batches that make a step", found: "\(batches)", needed: "1 or more")
    }
    self.batches = batches
  }

  /// Takes in the gradients of one batch.
  ///
  /// - Parameter gradients: of the mean loss of the batch, for every parameter in the same order.
  /// - Returns: the mean gradients if this batch was the last of a step, after which the next step begins; nil before.
  /// - Throws: `TrainingError` where the shapes are not those of the batch before.
  public mutating func callAsFunction(_ gradients: [Tensor], in context: ExecutionContext) throws(TrainingError) -> [Tensor]? {
    guard batches > 1 else { return gradients }
    if taken > 0 {
      guard gradients.count == sum.count else { throw .wrongCount(of: "gradients", expected: sum.count, found: gradients.count) }
      for (place, (gradient, other)) in zip(gradients, sum).enumerated() {
        try TrainingError.check("Gradient \(place)", gradient.shape, other.shape)
      }
    } else {
      sum = gradients.map { Tensor(zerosLike: $0) }
    }
    let share = 1 / Float(batches)
    Tensor.update(&sum, reading: [gradients], in: context) { run in
      let (sum, gradient) = (run.target(0), run.source(0))
      for i in 0..<run.count { sum[i] += gradient[i] * share }
    }
    taken += 1
    guard taken == batches else { return nil }
    defer { (sum, taken) = ([], 0) }
    return sum
  }
}
