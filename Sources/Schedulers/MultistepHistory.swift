import Tensor

/// The memory of a multistep method: its last predictions, or tensors made from them, newest first.
struct MultistepHistory: Sendable, Codable {
  /// How many tensors it holds, at least 1. This is the order of the method.
  let capacity: Int
  private(set) var outputs: [Tensor] = []

  init(capacity: Int) { self.capacity = capacity }

  /// Adds an output, and drops the oldest where there are too many.
  mutating func add(_ output: Tensor) { outputs = [output] + outputs.prefix(max(capacity, 1) - 1) }
}
