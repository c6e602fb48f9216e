import CLatentDiffusionKernels

/// Rows of a chunk in the form that `gemm_panel_crossed` takes: scaled to the magnitude of the weights, each with the sum that corrects its
/// crossed products.
///
/// A processor that can add and multiply at the same time makes a float32 product from them in two thirds of the time that its multipliers
/// alone would take. Each row has its own scale, a power of two, so that a row's results depend on no other row.
struct CrossedRows {
  let values: UnsafeMutablePointer<Float>
  let stride: Int
  /// Scales, sums and levels, `count` of each.
  private let numbers: TensorStorage
  private let count: Int
  private var first = 0

  var scales: UnsafeMutablePointer<Float> { numbers.pointer + first }
  var sums: UnsafeMutablePointer<Float> { numbers.pointer + count + first }
  private var levels: UnsafeMutablePointer<Float> { numbers.pointer + 2 * count + first }

  /// - Parameter level: the weights' mean magnitude.
  init(values: UnsafeMutablePointer<Float>, stride: Int, rows: Int, level: Float) {
    (self.values, self.stride, count) = (values, stride, rows)
    numbers = TensorStorage(count: 3 * rows)
    levels.update(repeating: level, count: rows)
  }

  /// Takes rows that need no scale, because they already have the magnitude of the other factor.
  init(of values: UnsafeMutablePointer<Float>, stride: Int, rows: Int, k: Int) {
    (self.values, self.stride, count) = (values, stride, rows)
    numbers = TensorStorage(count: 2 * rows)
    Kernels.active.cross_rows(rows, k, nil, values, stride, values, stride, scales, sums, 1)
  }

  /// Rows in new memory.
  init(stride: Int, rows: Int, level: Float) {
    let storage = TensorStorage(count: rows * (stride + 3))
    (self.stride, count) = (stride, rows)
    values = storage.pointer + 3 * rows
    numbers = storage
    levels.update(repeating: level, count: rows)
  }

  /// Makes some rows from `k` values each, which may be in the rows' place already.
  func take(_ rows: Range<Int>, from x: UnsafePointer<Float>, stride ldx: Int, k: Int) {
    let target = self.rows(from: rows.lowerBound)
    Kernels.active.cross_rows(rows.count, k, target.levels, x, ldx, target.values, stride, target.scales, target.sums, 1)
  }

  /// c = begin + these rows · panel, for the 32 columns of a panel.
  func multiply(
    _ rows: Int, k: Int, _ panel: CrossedPanel, into c: UnsafeMutablePointer<Float>, stride ldc: Int, begin: Int32,
    bias: UnsafePointer<Float>? = nil, residual: UnsafePointer<Float>? = nil, residualStride: Int = 0
  ) {
    Kernels.active.gemm_panel_crossed?(
      rows, k, values, stride, scales, sums, panel.values, panel.sums, c, ldc, begin, bias, residual, residualStride)
  }

  func rows(from row: Int) -> CrossedRows { CrossedRows(self, from: row) }

  private init(_ other: CrossedRows, from row: Int) {
    (values, stride, numbers, count) = (other.values + row * other.stride, other.stride, other.numbers, other.count)
    first = other.first + row
  }
}

/// Rows of a panel of weights, with the sum for each column that corrects its crossed products.
struct CrossedPanel {
  let values: UnsafePointer<Float>
  let sums: UnsafePointer<Float>

  init(values: UnsafePointer<Float>, sums: UnsafePointer<Float>) { (self.values, self.sums) = (values, sums) }

  /// - Parameter scratch: room for the rows `k` of the panel and one more.
  init(_ weights: PackedMatrix, panel: Int, rows k: Range<Int>, scratch: UnsafeMutablePointer<Float>) {
    let sums = scratch + k.count * PackedMatrix.panelWidth
    values = weights.panel(panel, rows: k, scratch: scratch)
    Kernels.active.cross_panel(k.count, values, sums)
    self.sums = UnsafePointer(sums)
  }
}

extension PackedMatrix {
  /// Whether this number of products of a picture with these weights is crossed: from 0.1 ms of products on, one more pass over the rows pays off.
  func isCrossed(products: Int) -> Bool {
    products >= 1 << 24 && !hasIntegerProduct && biasColumns % Self.panelWidth == 0 && Kernels.active.gemm_panel_crossed != nil
  }

  /// The mean magnitude of a sample of the weights (32 inputs of up to four panels), within a factor of two.
  var level: Float {
    let begin = inputs / 2 / Int(CK_BLOCK) * Int(CK_BLOCK)
    let sample = begin..<min(inputs, begin + Int(CK_BLOCK))
    let count = sample.count * Self.panelWidth
    let scratch = TensorStorage(count: 2 * count)
    var (one, magnitude, sum) = (Float(1), Float(0), Float(0))
    var (total, taken) = (Float(0), 0)
    for panel in Swift.stride(from: 0, to: panels, by: max(1, (panels + 3) / 4)) {
      // The scale that a row of these values gets if the weights' magnitude is 1.
      let values = self.panel(panel, rows: sample, scratch: scratch.pointer)
      Kernels.active.cross_rows(1, count, &one, values, count, scratch.pointer + count, count, &magnitude, &sum, 1)
      (total, taken) = (total + magnitude, taken + 1)
    }
    return total / Float(max(taken, 1))
  }
}
