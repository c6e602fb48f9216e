import CLatentDiffusionKernels
import Foundation
import LatentDiffusionTestSupport
import Testing

/// The kernels of gradients, each against its twin in plain C, at the edges of vectors and beyond them. What a kernel must not write holds a marker.
@Suite(.serialized) struct GradientKernelTests {
  private static let marker: Float = 12345
  private static let activations = [
    CK_ACTIVATION_NONE, CK_ACTIVATION_SILU, CK_ACTIVATION_GELU, CK_ACTIVATION_QUICK_GELU, CK_ACTIVATION_RELU, CK_ACTIVATION_TANH,
  ]

  /// Exponentials and Φ are off by 2e-7, and derivatives lie between -0.2 and 1.2.
  @Test(arguments: KernelSet.vectors) func activateBack(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 1)
    for activation in Self.activations {
      for count in Array(1...40) + [1000] {
        let x = numbers.normal(count, deviation: 4), g = numbers.normal(count)
        func run(_ kernels: ck_kernels) -> [Float] {
          var y = [Float](repeating: Self.marker, count: count + 3)
          kernels.activate_back(Int32(activation), count, x, g, &y)
          return y
        }
        worst.take(run(set.table), run(ck_table_plain), relative: 2e-6, absolute: 2e-6, "activation \(activation), \(count) values")
      }
    }
    worst.report("activate_back", set)
  }

  @Test(arguments: KernelSet.vectors) func gegluBack(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 2)
    for columns in 1...40 {
      let ldx = 2 * columns + 5, ldg = columns + 2, gates = columns + 3
      let x = numbers.normal(3 * ldx, deviation: 2), g = numbers.normal(3 * ldg)
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: 3 * ldx)
        kernels.geglu_back(3, columns, x, ldx, gates, g, ldg, &y)
        return y
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 2e-6, absolute: 4e-6, "\(columns) columns")
    }
    worst.report("geglu_back", set)
  }

  @Test(arguments: KernelSet.vectors) func normBack(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 3)
    for channels in Array(1...40) + [320] {
      for activation in [CK_ACTIVATION_NONE, CK_ACTIVATION_SILU] {
        let pixels = 19, ldg = channels + 4, x = numbers.normal(pixels * channels), g = numbers.normal(pixels * ldg)
        let all = (0..<4).map { _ in numbers.normal(channels) }
        func run(_ kernels: ck_kernels) -> [Float] {
          var y = [Float](repeating: Self.marker, count: pixels * channels + 3), sums = [Float](repeating: Self.marker, count: channels + 2)
          var products = sums
          all[0].withUnsafeBufferPointer { scale in
            all[1].withUnsafeBufferPointer { shift in
              all[2].withUnsafeBufferPointer { rate in
                all[3].withUnsafeBufferPointer { offset in
                  guard let a = scale.baseAddress, let b = shift.baseAddress, let c = rate.baseAddress, let d = offset.baseAddress else {
                    return
                  }
                  var numbers = ck_normalization(scale: a, shift: b, rate: c, offset: d)
                  kernels.norm_back(Int32(activation), pixels, channels, x, &numbers, g, ldg, &y, &sums, &products)
                }
              }
            }
          }
          return y + sums + products
        }
        worst.take(run(set.table), run(ck_table_plain), relative: 4e-6, absolute: 2e-5, "\(channels) channels, activation \(activation)")
      }
    }
    worst.report("norm_back", set)
  }

  @Test(arguments: KernelSet.vectors) func combine(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 4)
    for channels in 1...40 {
      let g = numbers.normal(5 * channels), x = numbers.normal(5 * channels)
      let (a, b, c) = (numbers.normal(channels), numbers.normal(channels), numbers.normal(channels))
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: 5 * channels + 2)
        kernels.combine(5, channels, g, a, x, b, c, &y)
        return y
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 1e-6, absolute: 2e-6, "\(channels) channels")
    }
    worst.report("combine", set)
  }

  /// The plain one sums in float64. Of one column nothing is left but rounding, times 1 / √ε.
  @Test(arguments: KernelSet.vectors) func layerNormBack(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 5)
    for columns in Array(2...70) + [320, 768, 1283] {
      let x = numbers.normal(3 * columns), g = numbers.normal(3 * columns), weight = numbers.normal(columns)
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: 3 * columns + 1), weights = [Float](repeating: 0.5, count: columns)
        var biases = [Float](repeating: -0.25, count: columns)
        kernels.layer_norm_back(3, columns, 1e-2, x, weight, g, &y, &weights, &biases)
        return y + weights + biases
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 4e-6, absolute: 1e-5, "\(columns) columns")
    }
    worst.report("layer_norm_back", set)
  }

  @Test(arguments: KernelSet.vectors) func softmaxBack(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 6)
    for columns in Array(1...40) + [256, 257] {
      let ldp = columns + 1, ldg = columns + 3, p = numbers.normal(3 * ldp).map { abs($0) / Float(columns) },
        start = numbers.normal(3 * ldg)
      func run(_ kernels: ck_kernels) -> [Float] {
        var g = start
        kernels.softmax_back(3, columns, 0.5, p, ldp, &g, ldg)
        return g
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 2e-6, absolute: 2e-6, "\(columns) columns")
    }
    worst.report("softmax_back", set)
  }

  /// Probabilities are off by 2e-7 of themselves for each unit of the exponent.
  @Test(arguments: KernelSet.vectors) func attentionBack(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 7)
    for columns in Array(1...40) + [192, 257] {
      let ld = columns + 3, scores = numbers.normal(3 * ld), start = numbers.normal(3 * ld), products = numbers.normal(3)
      let maxima: [Float] = [4, 6.5, 9], inverses: [Float] = [0.1, 0.3, 2]
      func run(_ kernels: ck_kernels) -> [Float] {
        var p = scores, g = start
        p[0] = -.infinity
        kernels.attention_back(3, columns, 0.5, maxima, inverses, products, &p, &g, ld)
        return p + g
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 4e-6, absolute: 1e-6, "\(columns) columns")
    }
    worst.report("attention_back", set)
  }

  /// Sums of k products of normal numbers, in another order. Columns that are no multiple of 8 need 16 floats after the last row.
  @Test(arguments: KernelSet.vectors) func unpackedProducts(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 8)
    for rows in Array(1...32) + [57, 129] {
      for (columns, k) in [(8, 5), (16, 1), (24, 40), (40, 33), (3, 17), (13, 64), (64, 12), (71, 9)] {
        let lda = max(rows, k) + 3, ldb = columns + 5, ldc = columns + 2
        let a = numbers.normal(max(rows, k) * lda), b = numbers.normal(k * ldb + 16), start = numbers.normal(rows * ldc)
        for begin in [CK_BEGIN_FRESH, CK_BEGIN_ACCUMULATE] {
          func run(_ kernels: ck_kernels) -> [Float] {
            var inner = start, outer = start
            kernels.gemm_rows(rows, columns, k, a, lda, b, ldb, &inner, ldc, Int32(begin))
            kernels.gemm_outer(rows, columns, k, a, lda, b, ldb, &outer, ldc, Int32(begin))
            return inner + outer
          }
          worst.take(
            run(set.table), run(ck_table_plain), relative: 1e-5, absolute: 1e-5, "\(rows) rows of \(k), \(columns) columns, \(begin)")
        }
      }
    }
    worst.report("gemm_rows and gemm_outer", set)
  }

  @Test(arguments: KernelSet.vectors) func adam(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 9)
    let step = ck_adam(kept: 0.999, first_gain: 0.1, second_kept: 0.99, second_gain: 0.01, step: 0.02, root: 0.3, epsilon: 1e-8)
    for count in Array(1...40) + [1000] {
      let start = (0..<3).map { _ in numbers.normal(count + 3) }, g = numbers.normal(count)
      func run(_ kernels: ck_kernels) -> [Float] {
        var (parameter, m, v) = (start[0], start[1], start[2].map(abs))
        withUnsafePointer(to: step) { kernels.adam(count, $0, &parameter, &m, &v, g) }
        return parameter + m + v
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 1e-6, absolute: 1e-6, "\(count) values")
    }
    worst.report("adam", set)
  }
}
