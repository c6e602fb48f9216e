import CLatentDiffusionKernels
import LatentDiffusionTestSupport
import Testing

/// The kernels of crossed products and of 8-bit weights against their twins in plain C, as `KernelTests` compares the others.
@Suite(.serialized) struct CompactKernelTests {
  private static let marker: Float = 12345

  // ---------------------------------------------------------------------------------------------------------- crossed products

  /// The same powers of two as in plain C (magnitudes that lie on the border of two are left out by chance), the same values, in place or not,
  /// and sums that differ by rounding; rows of zeros, of huge and of tiny values among them.
  @Test(arguments: KernelSet.vectors) func crossedRows(set: KernelSet) {
    var worst = Worst(), numbers = Numbers(seed: 41)
    for k in Array(1...70) + [128, 319, 320, 321, 640] {
      let (rows, ldx, ldy, lds) = (5, k + 3, k + 2, 3)
      var x = numbers.normal(rows * ldx)
      for (row, factor) in [Float(1), 0, 1e20, 1e-30, 37].enumerated() { for p in 0..<k { x[row * ldx + p] *= factor } }
      let levels: [Float] = [0.02, 1, 0.7, 3, 0.001]
      func run(_ kernels: ck_kernels) -> (values: [Float], numbers: [Float]) {
        var y = [Float](repeating: Self.marker, count: rows * ldy), scales = [Float](repeating: Self.marker, count: 2 * rows * lds)
        scales.withUnsafeMutableBufferPointer { scales in
          guard let base = scales.baseAddress else { return }
          kernels.cross_rows(rows, k, levels, x, ldx, &y, ldy, base, base + rows * lds, lds)
        }
        return (y, scales)
      }
      let (found, expected) = (run(set.table), run(ck_table_plain))
      #expect(found.values == expected.values, "rows of \(k)")
      #expect(found.numbers[..<(rows * lds)] == expected.numbers[..<(rows * lds)], "scales of rows of \(k)")
      #expect(expected.numbers[3 * lds] < 0x1p-90 || k == 1 && x[3 * ldx] == 0)
      // A sum of k products of values about a level each.
      for row in 0..<rows {
        let at = (rows + row) * lds, size = levels[row] * levels[row] * Float(k).squareRoot()
        worst.take(
          Array(found.numbers[at..<at + lds]), Array(expected.numbers[at..<at + lds]), relative: 1e-5, absolute: 4e-6 * size,
          "row \(row) of \(k)")
      }
      // As they are.
      var kept = x, numbersKept = found.numbers
      kept.withUnsafeMutableBufferPointer { values in
        guard let base = values.baseAddress else { return }
        numbersKept.withUnsafeMutableBufferPointer { numbers in
          guard let first = numbers.baseAddress else { return }
          set.table.cross_rows(1, k, nil, base, ldx, base, ldx, first, first + rows * lds, lds)
        }
      }
      let pairs = stride(from: 0, to: k / 3 * 3, by: 3).reduce(Float(0)) { $0 - x[$1 + 1] * x[$1 + 2] }
      #expect(kept == x && numbersKept[0] == 1 && abs(numbersKept[rows * lds] - pairs) < 1e-5 * Float(k + 1), "kept, rows of \(k)")
      var inPlace = x, numbersInPlace = found.numbers
      inPlace.withUnsafeMutableBufferPointer { values in
        guard let base = values.baseAddress else { return }
        numbersInPlace.withUnsafeMutableBufferPointer { numbers in
          guard let first = numbers.baseAddress else { return }
          set.table.cross_rows(rows, k, levels, base, ldx, base, ldx, first, first + rows * lds, lds)
        }
      }
      #expect(numbersInPlace == found.numbers, "in place, rows of \(k)")
      for row in 0..<rows {
        #expect(inPlace[row * ldx..<row * ldx + k] == found.values[row * ldy..<row * ldy + k], "in place, row \(row) of \(k)")
        #expect(inPlace[row * ldx + k..<(row + 1) * ldx] == x[row * ldx + k..<(row + 1) * ldx], "behind row \(row) of \(k)")
      }
    }
    worst.report("cross_rows", set)
  }

  /// Against sums in double precision of the values before they were crossed, plain C's as well: crossing rounds off three to four times what a
  /// plain sum does.
  @Test(arguments: KernelSet.vectors) func crossedProducts(set: KernelSet) {
    guard set.table.gemm_panel_crossed != nil else { return }
    var worst = Worst(), numbers = Numbers(seed: 42)
    for rows in Array(1...25) + [84, 252] {
      for k in [1, 2, 3, 4, 5, 16, 40, 64, 319, 320] {
        let (ldx, lda, ldc, ldr) = (k + 1, k + 5, 37, 35)
        let x = numbers.normal(rows * ldx, deviation: 9), panel = numbers.normal(k * 32, deviation: 0.03)
        let bias = numbers.normal(32), residual = numbers.normal(rows * ldr), start = numbers.normal(rows * ldc)
        let levels = [Float](repeating: 0.024, count: rows)
        for beginning in Beginning.allCases {
          let usesBias = [.bias, .biasAndResidual].contains(beginning), usesResidual = [.residual, .biasAndResidual].contains(beginning)
          func run(_ kernels: ck_kernels) -> [Float] {
            var a = [Float](repeating: Self.marker, count: rows * lda), scales = [Float](repeating: 0, count: rows)
            var sums = scales, panelSums = [Float](repeating: 0, count: 32), c = start
            kernels.cross_rows(rows, k, levels, x, ldx, &a, lda, &scales, &sums, 1)
            kernels.cross_panel(k, panel, &panelSums)
            bias.withUnsafeBufferPointer { bias in
              residual.withUnsafeBufferPointer { residual in
                kernels.gemm_panel_crossed?(
                  rows, k, a, lda, scales, sums, panel, panelSums, &c, ldc,
                  Int32(beginning == .accumulated ? CK_BEGIN_ACCUMULATE : CK_BEGIN_FRESH), usesBias ? bias.baseAddress : nil,
                  usesResidual ? residual.baseAddress : nil, ldr)
              }
            }
            return c
          }
          let expected = (0..<rows * ldc).map { index in
            let (i, j) = (index / ldc, index % ldc)
            guard j < 32 else { return start[index] }
            var sum = beginning == .accumulated ? Double(start[index]) : 0
            if usesBias { sum += Double(bias[j]) }
            if usesResidual { sum += Double(residual[i * ldr + j]) }
            for p in 0..<k { sum += Double(x[i * ldx + p]) * Double(panel[p * 32 + j]) }
            return Float(sum)
          }
          let name = "\(rows) rows of \(k), \(beginning)", tolerance = 4e-6 * (0.3 * Float(k + 2).squareRoot() + 1)
          worst.take(run(set.table), expected, relative: 0, absolute: tolerance, name)
          worst.take(run(ck_table_plain), expected, relative: 0, absolute: tolerance, "plain, " + name)
        }
      }
    }
    worst.report("gemm_panel_crossed", set)
  }

  // ------------------------------------------------------------------------------------------------------------------- 8 bits

  /// Rows become the same bytes and sums, but where a value stands on the border of two: a step of one there. Sets with a scale for each block have
  /// bytes of fewer bits, which are compared with the formula.
  @Test(arguments: KernelSet.vectors) func quantizedRows(set: KernelSet) {
    var numbers = Numbers(seed: 21)
    for (rows, k) in [(1, 32), (3, 64), (5, 320)] {
      let ldx = k + 7, ldq = k + 5
      var x = numbers.normal(rows * ldx, deviation: 3)
      if rows > 1 { for i in 0..<k { x[ldx + i] = 0 } }
      func run(_ kernels: ck_kernels) -> (q: [Int8], scales: [Float], sums: [Int32]) {
        var q = [Int8](repeating: 77, count: rows * ldq)
        var scales = [Float](repeating: 0, count: kernels.row_scales == 0 ? rows : rows * k / 32)
        var sums = [Int32](repeating: 0, count: rows * k / 32)
        kernels.quantize_rows(rows, k, x, ldx, &q, ldq, &scales, &sums)
        return (q, scales, sums)
      }
      let (found, expected) = (run(set.table), run(ck_table_plain))
      if set.table.row_scales != 0 {
        checkBlocks(found, of: x, stride: ldx, rows: rows, k: k, bytesStride: ldq)
        continue
      }
      #expect(found.scales == expected.scales)
      for row in 0..<rows {
        for i in 0..<ldq {
          let (a, b) = (Int(found.q[row * ldq + i]), Int(expected.q[row * ldq + i]))
          #expect(i < k ? abs(a - b) <= 1 : a == 77 && b == 77)
        }
        for block in 0..<k / 32 {
          let sum = (0..<32).reduce(0) { $0 + Int32(found.q[row * ldq + block * 32 + $1]) }
          #expect(found.sums[row * k / 32 + block] == -128 * sum)
        }
      }
      #expect(rows == 1 || found.scales[1] == 0 && found.q[ldq..<ldq + k].allSatisfy { $0 == 0 })
    }
  }

  /// Each block's largest value is a byte of the largest magnitude, all are within half a step, and nothing beyond a row is written.
  private func checkBlocks(
    _ found: (q: [Int8], scales: [Float], sums: [Int32]), of x: [Float], stride: Int, rows: Int, k: Int, bytesStride: Int
  ) {
    var most = 0
    for row in 0..<rows {
      for block in 0..<k / 32 {
        let scale = found.scales[row * k / 32 + block], values = x[row * stride + block * 32..<row * stride + block * 32 + 32]
        let bytes = found.q[row * bytesStride + block * 32..<row * bytesStride + block * 32 + 32]
        #expect(zip(values, bytes).allSatisfy { abs($0 - scale * Float($1)) <= 0.5001 * scale })
        #expect(found.sums[row * k / 32 + block] == bytes.reduce(0) { $0 - 128 * Int32($1) })
        if values.contains(where: { $0 != 0 }) { most = max(most, bytes.reduce(0) { max($0, abs(Int($1))) }) }
        #expect(values.contains { $0 != 0 } || scale == 0)
      }
      #expect(found.q[row * bytesStride + k..<(row + 1) * bytesStride].allSatisfy { $0 == 77 })
    }
    #expect(most == 64 || most == 127)
  }

  /// What is no number makes a scale that is none, so that products show it.
  @Test(arguments: KernelSet.vectors) func quantizedNaN(set: KernelSet) {
    for place in [0, 31, 32, 95] {
      var x = [Float](repeating: 0.5, count: 96), q = [Int8](repeating: 0, count: 96)
      var scales = [Float](repeating: 0, count: 3), sums = [Int32](repeating: 0, count: 3)
      x[place] = .nan
      set.table.quantize_rows(1, 96, x, 96, &q, 96, &scales, &sums)
      #expect(scales[set.table.row_scales == 0 ? 0 : place / 32].isNaN, "at \(place)")
    }
  }

  private func quantizedPanel(_ k: Int, _ numbers: inout Numbers) -> (values: [UInt8], scales: [UInt16]) {
    let values = (0..<k * 32).map { _ in UInt8.random(in: 1...255, using: &numbers) }
    // Halves between 2⁻⁷ and 2⁻⁵.
    return (values, (0..<k).map { _ in UInt16.random(in: 0x2000...0x27FF, using: &numbers) })
  }

  /// A product of two numbers: the same.
  @Test(arguments: KernelSet.vectors) func widenedBytes(set: KernelSet) {
    var numbers = Numbers(seed: 22)
    for k in [32, 96, 320] {
      let panel = quantizedPanel(k, &numbers)
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: k * 32 + 1)
        kernels.widen_q8(k, panel.values, panel.scales, &y)
        return y
      }
      #expect(run(set.table) == run(ck_table_plain))
      func words(_ kernels: ck_kernels) -> [UInt32] {
        var y = [UInt32](repeating: 0x4D4D_4D4D, count: k * 16 + 1)
        kernels.narrow_q8(k, panel.values, panel.scales, &y)
        return y
      }
      #expect(words(set.table) == words(ck_table_plain))
    }
  }

  /// Exact products and one rounding: the same, for every number of bits.
  @Test(arguments: KernelSet.vectors) func widenedGroups(set: KernelSet) {
    var numbers = Numbers(seed: 24)
    for planes in [0, 1, 2, 4] {
      let k = 37, low = (0..<k * 16).map { _ in UInt8.random(in: 0...255, using: &numbers) }
      let high = (0..<k * planes + 1).map { _ in UInt32.random(in: 0...UInt32.max, using: &numbers) }
      // Scales of 15 significant bits.
      let scales = numbers.normal(32).map { Float(bitPattern: $0.bitPattern & 0xFFFF_FE00) }, minima = numbers.normal(32)
      func run(_ kernels: ck_kernels) -> [Float] {
        var y = [Float](repeating: Self.marker, count: k * 32 + 1)
        kernels.widen_groups(k, low, high, Int32(planes), 1 << (3 + Int32(planes)), scales, minima, &y)
        return y
      }
      let found = run(set.table)
      #expect(found == run(ck_table_plain) && found.last == Self.marker)
      #expect(
        found[33] == scales[1]
          * Float(
            Int(low[17] & 15) + (0..<planes).reduce(0) { $0 + Int(high[planes + $1] >> 1 & 1) << (4 + $1) }
              - 1 << (3 + planes)) + minima[1])
    }
  }

  /// Whole numbers within a block are exact here; the formula rounds at each of up to 320 products: √320 · 6e-8, at the far end ten times that.
  @Test(arguments: KernelSet.vectors) func byteProducts(set: KernelSet) {
    guard let product = set.table.gemm_panel_q8, let plain = ck_table_plain.gemm_panel_q8 else { return }
    var worst = Worst(), numbers = Numbers(seed: 23)
    for rows in Array(1...15) + [84, 253] {
      for beginning in Beginning.allCases {
        let k = [32, 64, 320][rows % 3], lda = k + 64, (ldc, ldr) = (37, 34)
        // Bytes of sets with a scale for each block may have seven bits.
        let isOfBlocks = set.table.row_scales != 0, most: Int8 = isOfBlocks ? 64 : 127
        let a = (0..<rows * lda).map { _ in Int8.random(in: -most...most, using: &numbers) }
        let rowScales = numbers.normal(isOfBlocks ? rows * k / 32 : rows, deviation: 0.01), panel = quantizedPanel(k, &numbers)
        let sums = (0..<rows * k / 32).map { place in
          let begin = place / (k / 32) * lda + place % (k / 32) * 32
          return (0..<32).reduce(Int32(0)) { $0 - 128 * Int32(a[begin + $1]) }
        }
        let start = numbers.normal(rows * ldc), bias = numbers.normal(32), residual = numbers.normal(rows * ldr)
        func run(_ kernel: ByteProduct, blocks: Range<Int>, into c: inout [Float], scales: [Float], sums: [Int32], _ beginning: Beginning) {
          bias.withUnsafeBufferPointer { bias in
            residual.withUnsafeBufferPointer { residual in
              let (begin, panelBegin) = (blocks.lowerBound * 32, blocks.lowerBound * 32 * 32)
              kernel(
                rows, blocks.count * 32, Array(a[begin...]), lda, scales, sums, Array(panel.values[panelBegin...]),
                Array(panel.scales[begin...]),
                &c, ldc, Int32(beginning == .accumulated ? CK_BEGIN_ACCUMULATE : CK_BEGIN_FRESH),
                [.bias, .biasAndResidual].contains(beginning) ? bias.baseAddress : nil,
                [.residual, .biasAndResidual].contains(beginning) ? residual.baseAddress : nil, ldr)
            }
          }
        }
        var (found, expected) = (start, start)
        run(product, blocks: 0..<k / 32, into: &found, scales: rowScales, sums: sums, beginning)
        if isOfBlocks {
          // The formula knows one scale for a row, so it is asked block by block.
          for block in 0..<k / 32 {
            let scales = (0..<rows).map { rowScales[$0 * (k / 32) + block] }
            run(plain, blocks: block..<block + 1, into: &expected, scales: scales, sums: sums, block == 0 ? beginning : .accumulated)
          }
        } else {
          run(plain, blocks: 0..<k / 32, into: &expected, scales: rowScales, sums: sums, beginning)
        }
        let isGapKept = (0..<rows * ldc).allSatisfy { $0 % ldc < 32 || found[$0] == start[$0] }
        #expect(isGapKept, "\(rows) rows of \(k), \(beginning)")
        worst.take(found, expected, tolerance: 1e-5, "\(rows) rows of \(k), \(beginning)")
      }
    }
    worst.report("gemm_panel_q8", set)
  }

  private typealias ByteProduct =
    @convention(c) (
      Int, Int, UnsafePointer<Int8>, Int, UnsafePointer<Float>, UnsafePointer<Int32>, UnsafePointer<UInt8>, UnsafePointer<UInt16>,
      UnsafeMutablePointer<Float>, Int, Int32, UnsafePointer<Float>?, UnsafePointer<Float>?, Int
    ) -> Void

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
}
