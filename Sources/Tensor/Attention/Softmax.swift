extension CPUEngine {
  public func softmax(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let columns = x.shape.columns
    let result = Tensor(x.elements, shape: x.shape)
    try x.forRuns(in: context) { begin, rows in
      var state = SoftmaxState(rows: rows)
      let start = result.mutablePointer + begin * columns
      state.take(start, columns: columns, stride: columns, scale: 1)
      state.normalize(start, columns: columns, stride: columns)
    }
    return result
  }
}

extension Tensor {
  /// The softmax of each row, its exponentials divided by their sum: `[…, C]` → the same shape.
  /// - Throws: `CancellationError`.
  public func softmax(in context: ExecutionContext) throws -> Tensor { try context.engine.softmax(self, in: context) }
}

/// The running maxima and sums of an online softmax over some rows. Source: Milakov and Gimelshein 2018.
struct SoftmaxState {
  private let rows: Int
  private let maximum: TensorStorage
  private let sum: TensorStorage
  private let factor: TensorStorage

  init(rows: Int) {
    self.rows = rows
    (maximum, sum, factor) = (TensorStorage(count: rows), TensorStorage(count: rows), TensorStorage(count: rows))
    maximum.pointer.update(repeating: -.infinity, count: rows)
    sum.pointer.update(repeating: 0, count: rows)
  }

  /// Updates maxima and sums with the next scores, and replaces these by their exponentials.
  mutating func take(_ scores: UnsafeMutablePointer<Float>, columns: Int, stride: Int, scale: Float) {
    Kernels.active.softmax_block(rows, columns, scale, scores, stride, maximum.pointer, sum.pointer, factor.pointer)
  }

  /// Scales sums from before the last `take` to the current maximum.
  func rescale(_ output: UnsafeMutablePointer<Float>, columns: Int, stride: Int) {
    Kernels.active.scale_rows(rows, columns, factor.pointer, output, stride)
  }

  /// The maxima, and one divided by the sums.
  func write(maxima: UnsafeMutablePointer<Float>, inverses: UnsafeMutablePointer<Float>) {
    maxima.update(from: maximum.pointer, count: rows)
    for row in 0..<rows { inverses[row] = 1 / sum.pointer[row] }
  }

  /// Divides by the sums and by `factor`, which the values were multiplied by. A row without scores becomes zero.
  mutating func normalize(_ output: UnsafeMutablePointer<Float>, columns: Int, stride: Int, dividingBy factor: Float = 1) {
    for row in 0..<rows { self.factor.pointer[row] = sum.pointer[row] == 0 ? 0 : 1 / sum.pointer[row] / factor }
    rescale(output, columns: columns, stride: stride)
  }
}
