import Tensor

/// What a multistep method remembers: its last predictions, or what it made of them, newest first.
struct MultistepHistory: Sendable, Codable {
  /// How many it remembers, at least 1: the order of the method.
  let capacity: Int
  private(set) var outputs: [Tensor] = []

  init(capacity: Int) { self.capacity = capacity }

  /// Remembers an output, and forgets the oldest where there are too many.
  mutating func add(_ output: Tensor) { outputs = [output] + outputs.prefix(max(capacity, 1) - 1) }
}
