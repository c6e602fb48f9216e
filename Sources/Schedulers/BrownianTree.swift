import LatentDiffusionComponents
import Tensor

/// A path of Brownian motion over an interval of σ, which any increments can be asked of, in any order.
///
/// The path follows from its entropy alone: each half of an interval is drawn from a seed that belongs to its place in a binary tree. So nothing is
/// remembered but the ends, and the noise of a finer schedule is that of a coarser one with more detail.
///
/// Source: Li, Wong, Chen and Duvenaud, "Scalable gradients for stochastic differential equations", arXiv 2001.01328; `BrownianInterval` of torchsde with
/// `halfway_tree`, whose numbers it gives, as diffusers' and k-diffusion's `BrownianTreeNoiseSampler` use it.
struct BrownianTree: Sendable, Codable {
  /// The seed of the path.
  private let entropy: UInt64
  /// The smallest and the largest time, in single precision.
  private let start: Float
  private let end: Float

  /// The words that seeds are mixed from.
  private static let poolSize = 24
  /// The deepest level that is looked at. Times are multiples of 10⁻⁶, and no σ is above 10¹⁰.
  private static let depth = 60

  /// - Parameters:
  ///   - entropy: the seed.
  ///   - start: the smallest time.
  ///   - end: the largest time.
  init(entropy: UInt64, from start: Float, to end: Float) {
    (self.entropy, self.start, self.end) = (entropy, min(start, end), max(start, end))
  }

  /// Standard normal noise for a step: the increment from one time to the other, divided by the root of its variance.
  ///
  /// - Parameters:
  ///   - time: where the step starts.
  ///   - next: where it ends, above or below. What lies outside of the interval is the end's.
  ///   - sample: what it is noise for. It is drawn in PyTorch's order, as `NoiseSource.normal(like:)` draws.
  func noise(from time: Float, to next: Float, like sample: Tensor) -> Tensor {
    let increment = increment(from: Double(min(time, next)), to: Double(max(time, next)), like: sample)
    return (time < next ? 1 : -1) * increment / abs(next - time).squareRoot()
  }

  private func increment(from first: Double, to last: Double, like sample: Tensor) -> Tensor {
    let whole = Node(start: Self.rounded(Double(start)), end: Self.rounded(Double(end)), key: 0, depth: 0)
    func clamped(_ time: Double) -> Double { Self.rounded(min(max(time, whole.start), whole.end)) }
    let (first, last) = (clamped(first), clamped(last))
    guard first < last else { return Tensor(shape: sample.shape) }
    let seed = NumPySeedSequence(entropy: entropy, poolSize: Self.poolSize).state(1)[0]
    let path = Self.normal(seed, like: sample) * Float((Double(end) - Double(start)).squareRoot())
    return sum(whole, path, from: first, to: last, like: sample)
  }

  /// A part of the path.
  private struct Node {
    let start: Double
    let end: Double
    /// Its place from the left among the parts of its depth.
    let key: UInt64
    let depth: Int
  }

  /// The increment over what a node and a span have in common.
  /// - Parameter path: the node's own increment.
  private func sum(_ node: Node, _ path: Tensor, from first: Double, to last: Double, like sample: Tensor) -> Tensor {
    let middle = Self.rounded(0.5 * (node.end + node.start))
    if first <= node.start && last >= node.end || node.depth == Self.depth || middle <= node.start || middle >= node.end { return path }
    let seed = NumPySeedSequence(entropy: entropy, spawnKey: [node.key, UInt64(node.depth)], poolSize: Self.poolSize).state(1)[0]
    // A Brownian bridge: the middle is normal about the line between the ends.
    let (before, after, reciprocal) = (middle - node.start, node.end - middle, 1 / (node.end - node.start))
    let mean = Float(before) * path * Float(reciprocal)
    let left = mean + Float((before * after * reciprocal).squareRoot()) * Self.normal(seed, like: sample)
    let halves = [
      (Node(start: node.start, end: middle, key: 2 &* node.key, depth: node.depth + 1), left),
      (Node(start: middle, end: node.end, key: 2 &* node.key &+ 1, depth: node.depth + 1), path - left),
    ]
    let parts = halves.filter { first < $0.0.end && last > $0.0.start }.map { sum($0.0, $0.1, from: first, to: last, like: sample) }
    return parts.dropFirst().reduce(parts[0], +)
  }

  private static func normal(_ seed: UInt32, like sample: Tensor) -> Tensor {
    var generator: any NoiseSource = TorchGenerator(seed: UInt64(seed))
    return generator.normal(like: sample)
  }

  /// The nearest multiple of 10⁻⁶, of two equally near ones the even one: Python's `round(time, 6)`, which decides by the exact value.
  private static func rounded(_ time: Double) -> Double {
    let product = time * 1e6
    let below = product.rounded(.down)
    // How far the exact product is above the middle of two whole numbers.
    let excess = product - below - 0.5
    let rest = excess == 0 ? (-product).addingProduct(time, 1e6) : excess
    let isEven = below.truncatingRemainder(dividingBy: 2) == 0
    return (rest > 0 || rest == 0 && !isEven ? below + 1 : below) / 1e6
  }
}
