import Tensor

/// The memory of a multistep method: its last predictions, or tensors made from them, newest first.
struct MultistepHistory: Sendable, Codable {
  /// How many tensors it holds, at least 1. This is the order of the method.
  let capacity: Int
  private(set) var outputs: [Tensor] = []

  init(capacity: Int) { self.capacity = capacity }

  /// Adds an output, and drops the oldest where there are too many.
  mutating func add(_ output: Tensor) { outputs = [output] + outputs.prefix(max(capacity, 1) - 1) }

  /// The mean slope of a step by Adams and Bashforth's weights of first to fourth order.
  /// - Precondition: an output has been added.
  var adamsBashforth: Tensor {
    let e = outputs
    return switch e.count {
    case 1: e[0]
    case 2: (3 * e[0] - e[1]) / 2
    case 3: (23 * e[0] - 16 * e[1] + 5 * e[2]) / 12
    default: (1 / 24) * (55 * e[0] - 59 * e[1] + 37 * e[2] - 9 * e[3])
    }
  }
}
