import CLatentDiffusionKernels
import Foundation
import LatentDiffusionTestSupport
import Testing

/// The kernels of normalisations, softmax and Winograd's transforms, each against its twin in plain C.
@Suite(.serialized) struct NormalizationKernelTests {
  private static let marker: Float = 12345

  /// A run of at most 32,768 / channels pixels: its mean is summed in float32 and then corrected, so it is right to 1e-6 of the
  /// deviation, or 1e-7 of itself; the squares to 1e-5.
  @Test(arguments: KernelSet.vectors) func moments(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 1)
    for channels in Array(1...40) + [320] {
      for (pixels, mean, deviation) in [(1, 0, 1), (2, 0, 1), (17, 3, 0.1), (128, 1000, 1), (900, -50, 3)] as [(Int, Float, Float)] {
        let x = numbers.normal(pixels * channels, mean: mean, deviation: deviation)
        func run(_ kernels: ck_kernels) -> (mean: [Float], squares: [Float]) {
          var mean = [Float](repeating: Self.marker, count: channels + 1), squares = mean
          kernels.moments(pixels, channels, x, &mean, &squares)
          return (mean, squares)
        }
        let (found, expected) = (run(set.table), run(ck_table_plain))
        let name = "\(pixels) pixels, \(channels) channels around \(mean)"
        worst.take(found.mean, expected.mean, relative: 1.2e-7, absolute: 1e-6 * deviation, "mean of \(name)")
        worst.take(found.squares, expected.squares, relative: 1e-5, absolute: 1e-12, "squares of \(name)")
      }
    }
    worst.report("moments", set)
  }

  /// x · scale + shift rounds once or twice: 3e-7 of the terms, SiLU 4e-7 more.
  @Test(arguments: KernelSet.vectors) func scaleShift(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 2)
    for channels in 1...50 {
      for activation in [CK_ACTIVATION_NONE, CK_ACTIVATION_SILU] {
        let x = numbers.normal(3 * channels), scale = numbers.normal(channels), shift = numbers.normal(channels)
        func run(_ kernels: ck_kernels) -> [Float] {
          var y = [Float](repeating: Self.marker, count: 3 * (channels + 4))
          kernels.scale_shift(Int32(activation), 3, channels, x, scale, shift, &y, channels + 4)
          return y
        }
        worst.take(run(set.table), run(ck_table_plain), relative: 4e-7, absolute: 2e-6, "\(channels) channels, activation \(activation)")
      }
    }
    worst.report("scale_shift", set)
  }

  /// The plain one sums in float64; here what the mean lacks in float32 is added afterwards, so a large mean costs no digits.
  @Test(arguments: KernelSet.vectors) func layerNorm(set: KernelSet) {
    for (mean, deviation, tolerance) in [(0, 1, 2e-6), (100, 1, 2e-6), (0, 1e-4, 2e-6), (0, 1e10, 2e-6)] as [(Float, Float, Float)] {
      var worst = Worst(), numbers = Numbers(seed: 3)
      for columns in Array(1...70) + [320, 768, 1280, 1283] {
        let x = numbers.normal(3 * columns, mean: mean, deviation: deviation)
        let weight = numbers.normal(columns), bias = numbers.normal(columns)
        func run(_ kernels: ck_kernels) -> [Float] {
          var y = [Float](repeating: 0, count: 3 * columns + 1)
          kernels.layer_norm(3, columns, 1e-5, x, weight, bias, &y)
          return y
        }
        worst.take(
          run(set.table), run(ck_table_plain), relative: tolerance, absolute: tolerance,
          "\(columns) columns, mean \(mean), deviation \(deviation)")
      }
      worst.report("layer_norm", set)
    }
    var constant = [Float](repeating: .nan, count: 19)
    set.table.layer_norm(
      1, 19, 1e-5, [Float](repeating: 3, count: 19), [Float](repeating: 7, count: 19), [Float](repeating: 5, count: 19), &constant)
    #expect(constant == [Float](repeating: 5, count: 19))
  }

  private struct Softmax {
    var scores: [Float], maximum: [Float], total: [Float], rescale: [Float]
  }

  /// Exponentials are off by 2e-7 of themselves, more by the rounding of their argument (|score · scale| · 6e-8), and zero below 1e-38.
  @Test(arguments: KernelSet.vectors) func softmax(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 4)
    for columns in Array(1...70) + [256, 257] {
      for (scale, deviation, masked) in [(1, 1, 0), (0.125, 20, 0), (1, 30, 0.5), (1, 1, 1), (2, 1000, 0.2)] as [(Float, Float, Double)] {
        let rows = 4, ld = columns + 3
        func block() -> [Float] {
          numbers.normal(rows * ld, deviation: deviation).map { Double.random(in: 0..<1, using: &numbers) < masked ? -.infinity : $0 }
        }
        // Two blocks one after the other, as attention has them.
        let blocks = [block(), block()]
        func run(_ kernels: ck_kernels) -> [Softmax] {
          var state = Softmax(
            scores: [], maximum: [Float](repeating: -.infinity, count: rows), total: [Float](repeating: 0, count: rows),
            rescale: [Float](repeating: Self.marker, count: rows))
          return blocks.map {
            state.scores = $0
            kernels.softmax_block(rows, columns, scale, &state.scores, ld, &state.maximum, &state.total, &state.rescale)
            return state
          }
        }
        for (found, expected) in zip(run(set.table), run(ck_table_plain)) {
          let name = "\(columns) columns, scale \(scale), deviation \(deviation), \(masked) masked"
          let relative = 1e-6 + 4 * scale * deviation * 1.2e-7
          worst.take(found.scores, expected.scores, relative: relative, absolute: 2e-38, "scores of \(name)")
          #expect(found.maximum == expected.maximum, "\(name)")
          worst.take(found.total, expected.total, relative: relative, absolute: 2e-38, "sums of \(name)")
          worst.take(found.rescale, expected.rescale, relative: relative, absolute: 2e-38, "rescale of \(name)")
        }
      }
    }
    worst.report("softmax_block", set)
  }

  // ----------------------------------------------------------------------------------------------------------------- Winograd

  /// The transforms add up to 36 terms with factors up to 25, in another order than the plain ones: 2e-6 of the result.
  @Test(arguments: KernelSet.vectors) func winograd(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 5)
    for channels in Array(1...50) + [64] {
      let tile = numbers.normal(36 * channels), products = numbers.normal(36 * (channels + 3))
      let bias = numbers.normal(channels), residual = numbers.normal(16 * channels)
      func transformIn(_ kernels: ck_kernels) -> [Float] {
        var v = [Float](repeating: Self.marker, count: 36 * (channels + 5))
        tile.withUnsafeBufferPointer { tile in
          guard let base = tile.baseAddress else { return }
          kernels.winograd_input(channels, (0..<36).map { base + $0 * channels }, &v, channels + 5)
        }
        return v.enumerated().filter { $0.offset % (channels + 5) < channels || $0.element != Self.marker }.map(\.element)
      }
      worst.take(transformIn(set.table), transformIn(ck_table_plain), tolerance: 2e-6, "input of \(channels) channels")
      let right: Set = [3, 7, 11, 12, 13, 14, 15]
      for (hasResidual, hidden, activation) in [
        (false, [], CK_ACTIVATION_NONE), (true, [], CK_ACTIVATION_RELU), (true, right, CK_ACTIVATION_NONE),
        (false, right, CK_ACTIVATION_SILU),
      ] as [(Bool, Set<Int>, Int)] {
        func transformOut(_ kernels: ck_kernels) -> [Float] {
          var y = [Float](repeating: 0, count: 16 * channels)
          y.withUnsafeMutableBufferPointer { y in
            residual.withUnsafeBufferPointer { residual in
              guard let target = y.baseAddress, let source = residual.baseAddress else { return }
              let pixels = (0..<16).map { hidden.contains($0) ? nil : Optional(target + $0 * channels) }
              let residuals = (0..<16).map { hidden.contains($0) ? nil : Optional(source + $0 * channels) }
              residuals.withUnsafeBufferPointer {
                kernels.winograd_output(
                  Int32(activation), channels, products, channels + 3, bias, hasResidual ? $0.baseAddress : nil, pixels)
              }
            }
          }
          return y
        }
        let found = transformOut(set.table)
        let tolerance: Float = activation == CK_ACTIVATION_SILU ? 4e-6 : 2e-6
        worst.take(found, transformOut(ck_table_plain), tolerance: tolerance, "output of \(channels) channels")
        #expect(hidden.allSatisfy { pixel in found[pixel * channels..<(pixel + 1) * channels].allSatisfy { $0 == 0 } })
      }
    }
    let taps = numbers.normal(9 * 40)
    func transformWeights(_ kernels: ck_kernels) -> [Float] {
      var u = [Float](repeating: 0, count: 36 * 48)
      kernels.winograd_weights(taps, 40, &u, 48)
      return u
    }
    worst.take(transformWeights(set.table), transformWeights(ck_table_plain), tolerance: 1e-6, "weights")
    worst.report("winograd", set)
  }

  /// The plain transforms themselves: with them, 36 products give the convolution of a tile of six by six numbers with three by three.
  @Test func plainWinogradIsAConvolution() {
    var numbers = Numbers(seed: 6)
    let tile = numbers.normal(36), window = numbers.normal(9)
    var v = [Float](repeating: 0, count: 36), u = [Float](repeating: 0, count: 36 * 32), y = [Float](repeating: 0, count: 16)
    tile.withUnsafeBufferPointer { tile in
      guard let base = tile.baseAddress else { return }
      ck_table_plain.winograd_input(1, (0..<36).map { base + $0 }, &v, 1)
    }
    ck_table_plain.winograd_weights(window.flatMap { [Float](repeating: $0, count: 32) }, 32, &u, 32)
    let products = (0..<36).map { v[$0] * u[32 * $0] }
    y.withUnsafeMutableBufferPointer { y in
      guard let base = y.baseAddress else { return }
      ck_table_plain.winograd_output(Int32(CK_ACTIVATION_NONE), 1, products, 1, [0], nil, (0..<16).map { Optional(base + $0) })
    }
    let expected = (0..<16).map { place -> Float in
      let corner = place / 4 * 6 + place % 4
      return (0..<9).map { window[$0] * tile[corner + $0 / 3 * 6 + $0 % 3] }.reduce(0, +)
    }
    expectClose(y, expected, tolerance: 1e-5)
  }
}
