import Tensor

/// What a model learns: what it does with a batch, and how wrong that is.
public protocol TrainingObjective<Batch>: Sendable {
  /// What a step learns from.
  associatedtype Batch: Sendable

  /// Lets the model answer, and compares the answer with what it should be.
  ///
  /// - Parameters:
  ///   - batch: from a dataset.
  ///   - recording: in which the model runs: it records operations, and has what is trained in place of the model's own parameters.
  /// - Throws: `TrainingError`, `CancellationError`, what the model throws.
  func answer(to batch: Batch, in recording: ExecutionContext) throws -> TrainingAnswer
}

/// How wrong a model's answer to a batch is.
public struct TrainingAnswer: Sendable {
  /// The mean loss of the batch.
  public let loss: Double
  /// What the loss is a sum of, by name, where a program may want to show it.
  public let parts: [String: Double]
  /// What the model computed, and the gradient of the loss with respect to it, in its shape.
  public let gradients: [(result: Tensor, gradient: Tensor)]

  /// - Parameters:
  ///   - loss: the mean loss of the batch.
  ///   - parts: what the loss is a sum of, by name.
  ///   - gradients: of the loss, with respect to what the model computed.
  public init(loss: Double, parts: [String: Double] = [:], gradients: [(result: Tensor, gradient: Tensor)]) {
    (self.loss, self.parts, self.gradients) = (loss, parts, gradients)
  }
}
