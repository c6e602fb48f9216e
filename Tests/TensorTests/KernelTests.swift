import CKernels
import TestSupport
import Testing

/// Each kernel of each instruction set of this machine against its twin in plain C, at the edges of its tiles and beyond them.
///
/// What a kernel must not write holds a marker, and outputs are compared with all the gaps between their rows.
@Suite(.serialized) struct KernelTests {
  private static let marker: Float = 12345

  // ----------------------------------------------------------------------------------------------------------- matrix product

  enum Beginning: CaseIterable { case zero, bias, residual, biasAndResidual, accumulated }

  struct Product {
    let rows: Int, columns: Int, k: Int
    let beginning: Beginning
  }

  /// Both add k products in the same order, but the vector kernels round once a product and the plain one twice, so they drift apart
  /// as a random walk: about √k · 6e-8 of the result. 2e-6 is nine times that for the longest sum.
  @Test(arguments: KernelSet.vectors) func matrixProducts(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 1)
    for rows in Array(1...30) + [84, 112, 113, 252, 253] {
      for columns in 1...32 {
        for beginning in Beginning.allCases {
          let k = Int.random(in: 1...20, using: &numbers)
          check(Product(rows: rows, columns: columns, k: k, beginning: beginning), set, &worst, &numbers)
        }
      }
    }
    for k in Array(1...33) + [63, 64, 65, 319, 320, 321, 640] {
      for beginning in Beginning.allCases {
        check(Product(rows: 15, columns: 31, k: k, beginning: beginning), set, &worst, &numbers)
        check(Product(rows: 29, columns: 32, k: k, beginning: beginning), set, &worst, &numbers)
      }
    }
    worst.report("gemm_panel", set)
  }

  private func check(_ product: Product, _ set: KernelSet, _ worst: inout Worst, _ numbers: inout Numbers) {
    let (rows, columns, k) = (product.rows, product.columns, product.k)
    let (lda, ldc, ldr) = (k + 3, columns + 5, columns + 2)
    let a = numbers.normal(rows * lda), panel = numbers.normal(k * 32)
    let bias = numbers.normal(columns), residual = numbers.normal(rows * ldr)
    var start = [Float](repeating: Self.marker, count: rows * ldc)
    if product.beginning == .accumulated {
      for row in 0..<rows { for column in 0..<columns { start[row * ldc + column] = numbers.normal(1)[0] } }
    }
    func run(_ kernels: ck_kernels) -> [Float] {
      var c = start
      let begin = Int32(product.beginning == .accumulated ? CK_BEGIN_ACCUMULATE : CK_BEGIN_FRESH)
      bias.withUnsafeBufferPointer { bias in
        residual.withUnsafeBufferPointer { residual in
          kernels.gemm_panel(
            rows, columns, k, a, lda, panel, &c, ldc, begin,
            [.bias, .biasAndResidual].contains(product.beginning) ? bias.baseAddress : nil,
            [.residual, .biasAndResidual].contains(product.beginning) ? residual.baseAddress : nil, ldr)
        }
      }
      return c
    }
    let (found, expected) = (run(set.table), run(ck_table_plain))
    // The markers would hide what they are there to show: gaps exactly, the rest in units of its own size.
    let inside = (0..<rows * ldc).filter { $0 % ldc < columns }
    let isGapKept = (0..<rows * ldc).allSatisfy { $0 % ldc < columns || found[$0] == Self.marker }
    #expect(isGapKept, "\(product) wrote between its rows")
    worst.take(
      inside.map { found[$0] }, inside.map { expected[$0] }, relative: 0, absolute: 2e-6 * Float(k + 2).squareRoot(), "\(product)")
  }

  // ------------------------------------------------------------------------------------------------------------- element-wise

  private static let activations = [
    ("none", CK_ACTIVATION_NONE), ("SiLU", CK_ACTIVATION_SILU), ("GELU", CK_ACTIVATION_GELU), ("quick GELU", CK_ACTIVATION_QUICK_GELU),
  ].map { (name: $0.0, code: Int32($0.1)) }

  /// Where functions are hard: around zero, denormal, where exp overflows, underflows and stops being normal, infinite.
  private static let extremes: [Float] = [
    0, -0.0, .leastNonzeroMagnitude, -.leastNonzeroMagnitude, 0x1p-130, -0x1p-130, .leastNormalMagnitude, -.leastNormalMagnitude, 1e-20,
    -1e-20,
    1e-7, -1e-7, 1, -1, 10, -10, 20, -20, 50, -50, 87, -87, 87.3, -87.3, 87.4, -87.4, 88, -88, 88.7, -88.7, 88.73, -88.73, 89, -89, 103,
    -103, 104, -104, 150, -150, 1e4, -1e4, 1e10, -1e10, 1e38, -1e38, .greatestFiniteMagnitude, -.greatestFiniteMagnitude, .infinity,
  ]

  /// exp is off by 2e-7 of itself, and the error function's polynomial by 1.5e-7: 4e-7 of |x| or, around zero, of 1. Where the plain
  /// exp gives denormal numbers the vector one gives zero, far below the absolute tolerance.
  @Test(arguments: KernelSet.vectors) func activations(set: KernelSet) {
    for (name, code) in Self.activations {
      var worst = Worst(), numbers = Numbers(seed: 2)
      func check(_ x: [Float], rows: Int, columns: Int, ldx: Int, ldy: Int) {
        func run(_ kernels: ck_kernels) -> [Float] {
          var y = [Float](repeating: Self.marker, count: rows * ldy)
          kernels.activate(code, rows, columns, x, ldx, &y, ldy)
          return y
        }
        let exact = code == Int32(CK_ACTIVATION_NONE)
        worst.take(
          run(set.table), run(ck_table_plain), relative: exact ? 0 : 4e-7, absolute: exact ? 0 : 4e-7, "\(name) of \(rows) × \(columns)")
      }
      for columns in 1...70 {
        for rows in [1, 3] {
          check(numbers.normal(rows * (columns + 2), deviation: 4), rows: rows, columns: columns, ldx: columns + 2, ldy: columns + 1)
        }
      }
      check(Self.extremes, rows: 1, columns: Self.extremes.count, ldx: 0, ldy: Self.extremes.count)
      let grid = (0..<40_000).map { Float($0 - 20_000) / 400 }
      check(grid, rows: 1, columns: grid.count, ldx: grid.count, ldy: grid.count)
      worst.report("activate \(name)", set)

      var inPlace = numbers.normal(50)
      let apart = inPlace
      var expected = [Float](repeating: 0, count: 50)
      set.table.activate(code, 2, 25, apart, 25, &expected, 25)
      inPlace.withUnsafeMutableBufferPointer {
        guard let base = $0.baseAddress else { return }
        set.table.activate(code, 2, 25, base, 25, base, 25)
      }
      #expect(inPlace == expected, "\(name) in place")
    }
  }

  @Test(arguments: KernelSet.all) func notANumberStaysSo(set: KernelSet) {
    for (name, code) in Self.activations {
      for columns in [1, 7, 16, 33] {
        for place in [0, columns - 1] {
          var x = [Float](repeating: 1, count: columns), y = x
          x[place] = .nan
          set.table.activate(code, 1, columns, x, columns, &y, columns)
          #expect(y.indices.filter { y[$0].isNaN } == [place], "\(name) of \(columns)")
          var scores = x, maximum: [Float] = [-.infinity], total: [Float] = [0], rescale: [Float] = [0]
          set.table.softmax_block(1, columns, 1, &scores, columns, &maximum, &total, &rescale)
          #expect(scores[place].isNaN && total[0].isNaN, "softmax of \(columns)")
        }
      }
    }
  }

  /// As GELU, times the value: 4e-7 of their product's size.
  @Test(arguments: KernelSet.vectors) func geglu(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 3)
    for columns in 1...50 {
      let x = numbers.normal(3 * 2 * columns, deviation: 3)
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: 3 * columns + 1)
        kernels.geglu(3, columns, x, &y)
        return y
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 4e-7, absolute: 4e-6, "\(columns) columns")
    }
    worst.report("geglu", set)
  }

  /// One rounding or two: 2e-7 of the larger term.
  @Test(arguments: KernelSet.vectors) func sums(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 4)
    for count in Array(0...70) + [1000] {
      for (a, b) in [(1, 1), (0.3, -2), (0, 1), (1, 0), (-7.5, 1)] as [(Float, Float)] {
        let x = numbers.normal(count), start = numbers.normal(count) + [Self.marker]
        func run(_ kernels: ck_kernels) -> [Float] {
          var y = start
          kernels.axpby(count, a, x, b, &y)
          return y
        }
        worst.take(run(set.table), run(ck_table_plain), relative: 2e-7, absolute: 3e-6, "\(count) times \(a), \(b)")
      }
    }
    worst.report("axpby", set)
  }

  @Test(arguments: KernelSet.vectors) func rowScales(set: KernelSet) {
    var numbers = Numbers(seed: 5)
    for columns in 0...70 {
      let factors: [Float] = [0, 1, -2.5, .infinity], start = numbers.normal(4 * (columns + 3))
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = start
        kernels.scale_rows(4, columns, factors, &y, columns + 3)
        return y
      }
      // One product each: exactly the same.
      #expect(run(set.table) == run(ck_table_plain), "\(columns) columns")
    }
  }

  // ------------------------------------------------------------------------------------------------------------- conversions

  /// Exact for each of the 65,536 patterns, at every place of a vector; what is not a number stays so, with its sign and fraction in
  /// bfloat16 and, the quiet bit set, in half.
  @Test(arguments: KernelSet.all) func wideningIsExact(set: KernelSet) {
    let patterns = (0...UInt16.max).map { $0 }
    for shift in [0, 1, 5] {
      let x = Array(patterns[shift...])
      var halves = [Float](repeating: Self.marker, count: x.count + 1), brains = halves
      set.table.widen_f16(x.count, x, &halves)
      set.table.widen_bf16(x.count, x, &brains)
      #expect(halves.last == Self.marker && brains.last == Self.marker)
      let wrong = x.indices.filter { !Self.isHalf(x[$0], halves[$0]) }
      #expect(wrong.isEmpty, "\(wrong.count) halves, first \(wrong.first.map { "\(x[$0]): \(halves[$0])" } ?? "")")
      let wrongBrains = x.indices.filter { brains[$0].bitPattern != UInt32(x[$0]) << 16 }
      #expect(wrongBrains.isEmpty, "\(wrongBrains.count) bfloat16, first \(wrongBrains.first.map { "\(x[$0]): \(brains[$0])" } ?? "")")
    }
    for count in 0...40 {
      let x = (0..<count).map { UInt16($0 * 1571) }
      var y = [Float](repeating: Self.marker, count: count + 1)
      set.table.widen_f16(count, x, &y)
      #expect(y.last == Self.marker && zip(x, y).allSatisfy { Self.isHalf($0, $1) }, "\(count) halves")
      y = [Float](repeating: Self.marker, count: count + 1)
      set.table.widen_bf16(count, x, &y)
      #expect(y.last == Self.marker && zip(x, y).allSatisfy { UInt32($0) << 16 == $1.bitPattern }, "\(count) bfloat16")
    }
  }

  /// IEEE 754's own words for a half: (-1)^s · 2^(e-15) · 1.f, or 2^-14 · 0.f for e = 0.
  private static func isHalf(_ bits: UInt16, _ value: Float) -> Bool {
    let exponent = Int(bits >> 10 & 31), fraction = Double(bits & 1023) / 1024, sign = bits >> 15 == 1
    guard value.sign == (sign ? .minus : .plus) else { return false }
    if exponent == 31 { return fraction == 0 ? value.isInfinite : value.isNaN }
    let magnitude = exponent == 0 ? fraction * 0x1p-14 : (1 + fraction) * Double(sign: .plus, exponent: exponent - 15, significand: 1)
    return Double(abs(value)) == magnitude
  }
}
