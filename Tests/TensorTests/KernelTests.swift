import CLatentDiffusionKernels
import LatentDiffusionTestSupport
import Testing

/// Each kernel of each instruction set of this machine against its twin in plain C, at the edges of its tiles and beyond them.
///
/// What a kernel must not write holds a marker, and outputs are compared with all the gaps between their rows.
@Suite(.serialized) struct KernelTests {
  private static let marker: Float = 12345

  // ----------------------------------------------------------------------------------------------------------- matrix product

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
    ("ReLU", CK_ACTIVATION_RELU), ("tanh", CK_ACTIVATION_TANH),
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
      let (gates, ldx, ldy) = (columns + 2, 2 * columns + 5, columns + 3)
      let x = numbers.normal(3 * ldx, deviation: 3)
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: 3 * ldy)
        kernels.geglu(3, columns, x, ldx, gates, &y, ldy)
        return y
      }
      worst.take(run(set.table), run(ck_table_plain), relative: 4e-7, absolute: 4e-6, "\(columns) columns")
    }
    worst.report("geglu", set)
  }

  // ----------------------------------------------------------------------------------------------------------------- bfloat16

  /// The same words, of rows and of panels: halfway cases, infinities and what is not a number among them. Denormal numbers may be zero.
  @Test(arguments: KernelSet.vectors) func narrowing(set: KernelSet) {
    let marker: UInt32 = 0x4D4D_4D4D
    func withoutDenormals(_ words: [UInt32]) -> [UInt32] {
      words.map { word in
        [UInt32(0), 16].reduce(0) { $0 | (word >> $1 & 0x7F80 == 0 ? word >> $1 & 0x8000 : word >> $1 & 0xFFFF) << $1 }
      }
    }
    var numbers = Numbers(seed: 31)
    let hard: [Float] = [0, -0.0, 1, 1.00390625, 1.01171875, -1.00390625, .infinity, -.infinity, .nan, .greatestFiniteMagnitude, 0x1p-130]
    for k in Array(1...40) + [256] {
      let ldx = k + 3, ldy = (k + 1) / 2 + 2
      var x = numbers.normal(3 * ldx, deviation: 10)
      for (index, value) in hard.enumerated() { x[(index * 7) % x.count] = value }
      func rows(_ kernels: ck_kernels) -> [UInt32] {
        var y = [UInt32](repeating: marker, count: 3 * ldy)
        kernels.narrow_rows(3, k, x, ldx, &y, ldy)
        return withoutDenormals(y)
      }
      #expect(rows(set.table) == rows(ck_table_plain), "rows of \(k)")
      let panel = numbers.normal(k * 40)
      func words(_ kernels: ck_kernels) -> [UInt32] {
        var y = [UInt32](repeating: marker, count: (k + 1) / 2 * 32 + 5)
        kernels.narrow_panel(k, panel, 40, &y)
        return withoutDenormals(y)
      }
      #expect(words(set.table) == words(ck_table_plain), "a panel of \(k)")
    }
  }

  /// Sums of exact products, in another order: as `matrixProducts`. The instruction takes denormal numbers for zero.
  @Test(arguments: KernelSet.vectors) func productsOfPairs(set: KernelSet) {
    guard let product = set.table.gemm_panel_pairs, let plain = ck_table_plain.gemm_panel_pairs else { return }
    var worst = Worst(), numbers = Numbers(seed: 32)
    for rows in Array(1...33) + [48, 63, 64, 84, 130] {
      for columns in [8, 16, 24, 32] {
        for beginning in Beginning.allCases {
          let k = [2, 40, 78, 256][rows % 4], unit = set.table.pair_words
          let words = (k / 2 + unit - 1) / unit * unit, lda = words + 3, ldc = 37
          var a = [UInt32](repeating: 0, count: rows * lda), panel = [UInt32](repeating: 0, count: words * 32)
          ck_table_plain.narrow_rows(rows, k, numbers.normal(rows * k), k, &a, lda)
          ck_table_plain.narrow_panel(k, numbers.normal(k * 32), 32, &panel)
          let start = numbers.normal(rows * ldc)
          func run(_ product: PairProduct) -> [Float] {
            var c = start
            begun(beginning, columns: columns, rows: rows, seed: 33) { begin, bias, residual, ldr in
              product(rows, columns, words, a, lda, panel, &c, ldc, begin, bias, residual, ldr)
            }
            return c
          }
          let (found, expected) = (run(product), run(plain))
          let isGapKept = (0..<rows * ldc).allSatisfy { $0 % ldc < columns || found[$0] == start[$0] }
          #expect(isGapKept, "\(rows) rows of \(k), \(columns) columns")
          worst.take(
            found, expected, relative: 0, absolute: 3e-6 * Float(k + 2).squareRoot(),
            "\(rows) rows of \(k), \(columns) columns, \(beginning)")
        }
      }
    }
    worst.report("gemm_panel_pairs", set)
  }

  private typealias PairProduct =
    @convention(c) (
      Int, Int, Int, UnsafePointer<UInt32>, Int, UnsafePointer<UInt32>, UnsafeMutablePointer<Float>, Int, Int32, UnsafePointer<Float>?,
      UnsafePointer<Float>?, Int
    ) -> Void

  /// Calls with what a product begins at: the code, bias, residual and the residual's stride.
  private func begun(
    _ beginning: Beginning, columns: Int, rows: Int, seed: UInt64,
    _ body: (Int32, UnsafePointer<Float>?, UnsafePointer<Float>?, Int) -> Void
  ) {
    var numbers = Numbers(seed: seed)
    let ldr = columns + 2, bias = numbers.normal(columns), residual = numbers.normal(rows * ldr)
    bias.withUnsafeBufferPointer { bias in
      residual.withUnsafeBufferPointer { residual in
        body(
          Int32(beginning == .accumulated ? CK_BEGIN_ACCUMULATE : CK_BEGIN_FRESH),
          [.bias, .biasAndResidual].contains(beginning) ? bias.baseAddress : nil,
          [.residual, .biasAndResidual].contains(beginning) ? residual.baseAddress : nil, ldr)
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------------ split factors

  /// The same parts, which are the values together; what is not a number is not hidden.
  @Test(arguments: KernelSet.vectors) func parts(set: KernelSet) {
    var numbers = Numbers(seed: 38)
    for count in Array(1...35) + [320] {
      var x = numbers.normal(count, deviation: 10)
      x[count / 2] = [1.00390625, -1.00390625, 3e38, 1e-30, 0][count % 5]
      func run(_ kernels: ck_kernels) -> (upper: [Float], lower: [Float]) {
        var upper = [Float](repeating: Self.marker, count: count + 1), lower = upper
        kernels.part(count, x, &upper, &lower)
        return (upper, lower)
      }
      let found = run(set.table), plain = run(ck_table_plain)
      #expect(found == plain && found.upper[count] == Self.marker && found.lower[count] == Self.marker, "\(count) values")
      #expect((0..<count).allSatisfy { found.upper[$0] + found.lower[$0] == x[$0] && found.upper[$0].bitPattern & 0xFFFF == 0 })
    }
    for value in [Float.nan, .init(bitPattern: 0x7FFF_FFFF), .infinity] {
      var upper: [Float] = [0], lower = upper
      set.table.part(1, [value], &upper, &lower)
      #expect(lower[0].isNaN)
    }
  }

  /// Blocks of 64 rows with few columns and the last rows are made in two ways, and yet a row is the same, however many there are.
  @Test(arguments: KernelSet.vectors) func rowsDoNotDependOnOneAnother(set: KernelSet) {
    guard let split = set.table.gemm_panel_split, let pairs = set.table.gemm_panel_pairs else { return }
    var numbers = Numbers(seed: 39)
    let a = numbers.normal(130 * 64), b = numbers.normal(64 * 32)
    var words = [UInt32](repeating: 0, count: a.count), panel = [UInt32](repeating: 0, count: b.count)
    set.table.split_rows(130, 64, a, 64, &words, 64)
    set.table.split_panel(64, b, &panel)
    for columns in [8, 16, 24, 32] {
      for product in [split, pairs] {
        var all = [Float](repeating: 0, count: 130 * 32), each = all
        product(130, columns, 64, words, 64, panel, &all, 32, Int32(CK_BEGIN_FRESH), nil, nil, 0)
        for row in 0..<130 {
          var one = [Float](repeating: 0, count: 32)
          product(1, columns, 64, Array(words[row * 64..<(row + 1) * 64]), 64, panel, &one, 32, Int32(CK_BEGIN_FRESH), nil, nil, 0)
          each.replaceSubrange(row * 32..<(row + 1) * 32, with: one)
        }
        #expect(all == each, "\(columns) columns")
      }
    }
  }

  /// The same words, in place as well, which are within 2⁻¹⁷ of the values together; and the values that a panel's words are.
  @Test(arguments: KernelSet.vectors) func splitting(set: KernelSet) {
    let marker: UInt32 = 0x4D4D_4D4D
    var numbers = Numbers(seed: 34)
    for k in Array(1...70) + [320] {
      let padded = (k + 31) / 32 * 32, ldx = padded + 3
      var x = numbers.normal(3 * ldx, deviation: 10)
      for (index, value) in [Float(0), -0.0, 1, 1.00390625, -1.00390625, 3e38, 1e-30, 0x1p-100].enumerated() {
        x[index * 7 % x.count] = value
      }
      func rows(_ kernels: ck_kernels) -> [UInt32] {
        var y = [UInt32](repeating: marker, count: 3 * ldx)
        kernels.split_rows(3, k, x, ldx, &y, ldx)
        return y
      }
      let found = rows(set.table)
      #expect(found == rows(ck_table_plain), "rows of \(k)")
      for index in 0..<3 * ldx where index % ldx < k {
        let value = index % ldx, word = index / ldx * ldx + value / 32 * 32 + value % 16, isUpper = value % 32 >= 16
        let parts = [found[word], found[word + 16]].map { Float(bitPattern: isUpper ? $0 & 0xFFFF_0000 : $0 << 16) }
        #expect(abs(parts[0] + parts[1] - x[index]) <= abs(x[index]) * 0x1p-17, "\(x[index])")
      }
      var inPlace = x.map(\.bitPattern)
      inPlace.withUnsafeMutableBytes { bytes in
        guard let words = bytes.assumingMemoryBound(to: UInt32.self).baseAddress else { return }
        set.table.split_rows(3, k, UnsafeRawPointer(words).assumingMemoryBound(to: Float.self), ldx, words, ldx)
      }
      #expect(zip(inPlace, found).enumerated().allSatisfy { $0.offset % ldx >= padded || $0.element.0 == $0.element.1 }, "in place, \(k)")
      let panel = numbers.normal(k * 32)
      func words(_ kernels: ck_kernels) -> [UInt32] {
        var y = [UInt32](repeating: marker, count: padded * 32 + 5)
        kernels.split_panel(k, panel, &y)
        return y
      }
      func values(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: padded * 32 + 5)
        kernels.join_panel(padded, words(kernels), &y)
        return y
      }
      #expect(words(set.table) == words(ck_table_plain) && values(set.table) == values(ck_table_plain), "a panel of \(k)")
      let joined = values(set.table)
      #expect((0..<k * 32).allSatisfy { abs(joined[$0] - panel[$0]) <= abs(panel[$0]) * 0x1p-17 }, "a panel of \(k), joined")
    }
  }

  /// Against sums in double precision of what the values were, plain C's as well: a product is rounded by up to 2⁻¹⁷ of itself, and
  /// those of normal numbers reach ten.
  @Test(arguments: KernelSet.vectors) func splitProducts(set: KernelSet) {
    guard set.table.gemm_panel_split != nil else { return }
    var worst = Worst(), numbers = Numbers(seed: 35)
    for rows in Array(1...34) + [47, 64, 84, 130] {
      for k in [32, 64, 320] {
        let lda = k + 16, ldc = 37
        let x = numbers.normal(rows * k), panel = numbers.normal(k * 32), start = numbers.normal(rows * ldc)
        for (columns, beginning) in [8, 16, 24, 32].flatMap({ columns in Beginning.allCases.map { (columns, $0) } }) {
          func run(_ kernels: ck_kernels) -> [Float] {
            var a = [UInt32](repeating: 0, count: rows * lda), words = [UInt32](repeating: 0, count: k * 32), c = start
            kernels.split_rows(rows, k, x, k, &a, lda)
            kernels.split_panel(k, panel, &words)
            begun(beginning, columns: columns, rows: rows, seed: 36) { begin, bias, residual, ldr in
              kernels.gemm_panel_split?(rows, columns, k, a, lda, words, &c, ldc, begin, bias, residual, ldr)
            }
            return c
          }
          var expected = start
          begun(beginning, columns: columns, rows: rows, seed: 36) { begin, bias, residual, ldr in
            for index in 0..<rows * ldc where index % ldc < columns {
              let (i, j) = (index / ldc, index % ldc)
              var sum = begin == CK_BEGIN_ACCUMULATE ? Double(start[index]) : Double(bias?[j] ?? 0) + Double(residual?[i * ldr + j] ?? 0)
              for p in 0..<k { sum += Double(x[i * k + p]) * Double(panel[p * 32 + j]) }
              expected[index] = Float(sum)
            }
          }
          let tolerance = 4e-5 * Float(k).squareRoot(), name = "\(rows) rows of \(k), \(columns) columns, \(beginning)"
          worst.take(run(set.table), expected, relative: 0, absolute: tolerance, name)
          worst.take(run(ck_table_plain), expected, relative: 0, absolute: tolerance, "plain, " + name)
        }
      }
    }
    worst.report("gemm_panel_split", set)
  }

  /// Windows of all widths, which the tiles of rows are made of in four ways, split and of pairs.
  @Test(arguments: KernelSet.vectors) func windows(set: KernelSet) {
    guard let product = set.table.gemm_windows, let plain = ck_table_plain.gemm_windows else { return }
    var worst = Worst(), numbers = Numbers(seed: 37)
    for width in [1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 65] {
      for lines in [1, 2, 3] {
        for isSplit in [true, false] {
          let k = 64, words = isSplit ? 64 : 32, pixel = words + 5, line = (width + 2) * pixel + 3, step = words * 32 + 7
          let pixels = (lines + 2) * (width + 2)
          var a = [UInt32](repeating: 0, count: (lines + 2) * line), panel = [UInt32](repeating: 0, count: 9 * step)
          a.withUnsafeMutableBufferPointer { a in
            guard let base = a.baseAddress else { return }
            for index in 0..<pixels {
              let target = base + index / (width + 2) * line + index % (width + 2) * pixel, x = numbers.normal(k)
              if isSplit {
                ck_table_plain.split_rows(1, k, x, k, target, pixel)
              } else {
                ck_table_plain.narrow_rows(1, k, x, k, target, pixel)
              }
            }
          }
          panel.withUnsafeMutableBufferPointer { panel in
            guard let base = panel.baseAddress else { return }
            for tap in 0..<9 {
              let values = numbers.normal(k * 32), target = base + tap * step
              if isSplit { ck_table_plain.split_panel(k, values, target) } else { ck_table_plain.narrow_panel(k, values, 32, target) }
            }
          }
          let offsets = (0..<9).map { $0 / 3 * line + $0 % 3 * pixel }, resultLine = width * 40 + 9
          let start = numbers.normal(lines * resultLine), residual = numbers.normal(lines * resultLine), bias = numbers.normal(32)
          for beginning in Beginning.allCases {
            func run(_ product: WindowProduct) -> [Float] {
              var c = start
              offsets.withUnsafeBufferPointer { offsets in
                bias.withUnsafeBufferPointer { bias in
                  residual.withUnsafeBufferPointer { residual in
                    guard let first = offsets.baseAddress else { return }
                    var shape = ck_windows(
                      lines: lines, width: width, taps: 9, offsets: first, words: words, panel: step, pixel: pixel, line: line,
                      result_pixel: 40, result_line: resultLine)
                    product(
                      isSplit ? 1 : 0, &shape, a, panel, &c, Int32(beginning == .accumulated ? CK_BEGIN_ACCUMULATE : CK_BEGIN_FRESH),
                      [.bias, .biasAndResidual].contains(beginning) ? bias.baseAddress : nil,
                      [.residual, .biasAndResidual].contains(beginning) ? residual.baseAddress : nil)
                  }
                }
              }
              return c
            }
            let (found, expected) = (run(product), run(plain))
            let isInside = (0..<start.count).map { $0 % resultLine < width * 40 && $0 % resultLine % 40 < 32 }
            #expect(found.indices.allSatisfy { isInside[$0] || found[$0] == start[$0] }, "\(lines) lines of \(width) wrote between")
            worst.take(found, expected, relative: 0, absolute: 2e-4, "\(lines) lines of \(width), split \(isSplit), \(beginning)")
          }
        }
      }
    }
    worst.report("gemm_windows", set)
  }

  private typealias WindowProduct =
    @convention(c) (
      Int32, UnsafePointer<ck_windows>, UnsafePointer<UInt32>, UnsafePointer<UInt32>, UnsafeMutablePointer<Float>, Int32,
      UnsafePointer<Float>?,
      UnsafePointer<Float>?
    ) -> Void

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
