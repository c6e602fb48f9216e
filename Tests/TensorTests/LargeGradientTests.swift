import Foundation
import LatentDiffusionTestSupport
import Tensor
import Testing

/// Gradients of shapes that are cut into several blocks, slices and parts, against their formulas in float64.
struct LargeGradientTests {
  private let context = ExecutionContext(threads: 2)

  struct Kernel: CustomTestStringConvertible {
    let channels: [Int]
    let outputs: Int
    let sides: (height: Int, width: Int)
    let geometry: ConvolutionGeometry
    var images = 1
    var size: (height: Int, width: Int)?
    var testDescription: String { "\(channels) → \(outputs), \(images) × \(sides), \(geometry)" }
  }

  private static let same = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
  static let kernels = [
    Kernel(channels: [72, 5], outputs: 133, sides: (19, 33), geometry: same, images: 2),
    Kernel(channels: [32], outputs: 32, sides: (7, 300), geometry: same),
    Kernel(channels: [16], outputs: 24, sides: (9, 11), geometry: same, images: 3, size: (18, 22)),
    Kernel(
      channels: [12], outputs: 8, sides: (37, 41), geometry: .init(kernelHeight: 3, kernelWidth: 3, stride: 2, padding: .all(1)), images: 2),
    Kernel(
      channels: [8], outputs: 8, sides: (30, 31),
      geometry: .init(kernelHeight: 3, kernelWidth: 3, stride: 2, padding: .init(top: 0, left: 0, bottom: 1, right: 1)), images: 2),
    Kernel(
      channels: [9], outputs: 7, sides: (40, 40), geometry: .init(kernelHeight: 8, kernelWidth: 8, stride: 8, padding: .all(0)), images: 2),
    Kernel(
      channels: [40, 64], outputs: 48, sides: (20, 31), geometry: .init(kernelHeight: 1, kernelWidth: 1, padding: .all(0)), images: 2),
    Kernel(channels: [13], outputs: 200, sides: (20, 31), geometry: .init(kernelHeight: 1, kernelWidth: 1, padding: .all(0))),
    Kernel(
      channels: [6], outputs: 10, sides: (21, 23), geometry: .init(kernelHeight: 4, kernelWidth: 5, stride: 3, padding: .all(2)), images: 2),
  ]

  /// Σ dW ∘ D = Σ g ∘ (x ∗ D) for any kernel D.
  @Test(arguments: kernels) func weights(kernel: Kernel) throws {
    var numbers = Numbers(seed: 1)
    let shapes = kernel.channels.map { Shape([kernel.images, kernel.sides.height, kernel.sides.width, $0]) }
    let inputs = shapes.map { Tensor(numbers.normal($0.count), shape: $0) }
    let geometry = kernel.geometry
    let shape = Shape([kernel.outputs, kernel.channels.reduce(0, +), geometry.kernelHeight, geometry.kernelWidth])
    let direction = Tensor(numbers.normal(shape.count), shape: shape)
    let weights = try PackedMatrix(WeightTensor(direction), in: context)
    let tape = GradientTape()
    tape.follow(weights)
    let y = try Tensor.convolution(
      inputs, resizedTo: kernel.size, weights: weights, geometry: geometry, method: .direct, in: context.recording(on: tape))
    let gradient = Tensor(numbers.normal(y.count), shape: y.shape)
    let own = try #require(try tape.gradients(of: y, times: gradient, in: context)[weights])
    let found = dot(own, direction), expected = dot(gradient, y)
    let size = (dot(own, own) * dot(direction, direction)).squareRoot() / Double(own.count).squareRoot()
    #expect(abs(found - expected) < (splitsFactors ? 2e-4 : 2e-5) * size, "\(kernel.testDescription): \(found) is not \(expected).")
  }

  private func dot(_ a: Tensor, _ b: Tensor) -> Double { zip(a.elements, b.elements).reduce(0) { $0 + Double($1.0) * Double($1.1) } }

  /// Scores reach 20, so that their rounding is 2e-6 of a probability, and a gradient is a difference of such.
  @Test(arguments: [(180, 400, 8, false), (400, 400, 5, true), (170, 77, 40, false), (3, 500, 16, false), (350, 193, 24, true)])
  func attention(length: Int, keyCount: Int, width: Int, causal: Bool) throws {
    var numbers = Numbers(seed: 2)
    let heads = 3, scale = 1 / Float(width).squareRoot(),
      shapes = [length, keyCount, keyCount, length].map { Shape([2, $0, heads * width]) }
    let all = shapes.map { Tensor(numbers.normal($0.count, deviation: 1.5), shape: $0) }
    let tape = GradientTape()
    all.prefix(3).forEach(tape.follow)
    let y = try Tensor.attention(
      queries: all[0], keys: all[1], values: all[2], heads: heads, scale: scale, causal: causal, in: context.recording(on: tape))
    let gradients = try tape.gradients(of: y, times: all[3], in: context)
    let expected = gradient(
      all.map(\.elements), length: length, keyCount: keyCount, heads: heads, width: width, scale: scale, causal: causal)
    for (index, name) in ["queries", "keys", "values"].enumerated() {
      let reference = Tensor(expected[index].map { Float($0) }, shape: shapes[index])
      expectClose(
        try #require(gradients[all[index]]), reference, tolerance: splitsFactors ? 2e-4 : 4e-5,
        "\(name) of \(length), \(keyCount), \(width)")
    }
  }

  /// The formulas of `AttentionGradient`, one number after the other.
  private func gradient(
    _ all: [[Float]], length: Int, keyCount: Int, heads: Int, width: Int, scale: Float, causal: Bool
  ) -> [[Double]] {
    let columns = heads * width
    var results = all.prefix(3).map { [Double](repeating: 0, count: $0.count) }
    for (image, head, row) in (0..<2 * heads * length).map({ ($0 / length / heads, $0 / length % heads, $0 % length) }) {
      let query = (image * length + row) * columns + head * width, visible = causal ? min(keyCount, row + 1) : keyCount
      let places = (0..<visible).map { (image * keyCount + $0) * columns + head * width }
      func products(_ a: [Float], _ b: [Float]) -> [Double] {
        places.map { place in (0..<width).reduce(0.0) { $0 + Double(a[query + $1]) * Double(b[place + $1]) } }
      }
      let scores = products(all[0], all[1]).map { $0 * Double(scale) }, top = scores.max() ?? 0
      let exponentials = scores.map { exp($0 - top) }, sum = exponentials.reduce(0, +), p = exponentials.map { $0 / sum }
      let slopes = products(all[3], all[2]), mean = zip(p, slopes).reduce(0) { $0 + $1.0 * $1.1 }
      for (key, place) in places.enumerated() {
        let slope = p[key] * (slopes[key] - mean) * Double(scale)
        for i in 0..<width {
          results[0][query + i] += slope * Double(all[1][place + i])
          results[1][place + i] += slope * Double(all[0][query + i])
          results[2][place + i] += p[key] * Double(all[3][query + i])
        }
      }
    }
    return results
  }
}
