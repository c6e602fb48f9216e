import CKernels

extension Tensor {
  /// The product of this tensor's rows with weights, `[…, K]` · `[M, K]`ᵀ → `[…, M]`, in one pass over the result:
  /// activation(x · Wᵀ + bias + residual).
  ///
  /// - Parameters:
  ///   - bias: `[M]`.
  ///   - residual: of the result's shape.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public func multiplied(
    by weights: PackedMatrix, bias: Tensor? = nil, adding residual: Tensor? = nil, activation: Activation = .none,
    in context: ExecutionContext
  ) throws -> Tensor {
    precondition(shape.columns == weights.inputs, "\(shape) cannot be multiplied by [\(weights.outputs), \(weights.inputs)].")
    let result = Tensor(uninitialized: Shape(shape.dimensions.dropLast() + [weights.outputs]))
    try MatrixProduct(
      left: .matrix(pointer, stride: shape.columns), rows: shape.rows, weights: weights, result: result, bias: bias, residual: residual,
      activation: activation
    ).run(in: context)
    return result
  }
}

/// The left operand of a product: a matrix whose rows need not exist in memory.
enum LeftOperand {
  case matrix(UnsafePointer<Float>, stride: Int)
  case patches(Patches)
}

/// One product of activations with packed weights, cut into tasks.
///
/// A task has a block of rows and a run of panels. It walks over the inner dimension in chunks: the rows' chunk is gathered into a
/// contiguous buffer that stays in the second-level cache, and each panel's chunk passes over it. Every element of the result sums
/// its products in the same order however the work is cut, so it does not depend on the number of threads.
struct MatrixProduct {
  let left: LeftOperand
  let rows: Int
  let weights: PackedMatrix
  let result: Tensor
  /// `[M]`, or `[rows / n, M]`: a bias for each n rows.
  let bias: Tensor?
  let residual: Tensor?
  let activation: Activation

  /// Rows of a block: a multiple of every kernel's tile height (14 and 6).
  private static let blockRows = 252
  /// Inner elements of a chunk: 252 · 320 floats are a third of a megabyte.
  static let chunkLength = 320
  /// Floats between gathered rows: no power of two, so that rows do not fall on the same cache sets.
  private static let gatheredStride = chunkLength + 16

  func run(in context: ExecutionContext) throws {
    precondition(residual.map { $0.shape.count == result.count } ?? true, "The residual does not match \(result.shape).")
    precondition(
      bias.map { $0.shape.columns == weights.outputs && rows % max($0.shape.rows, 1) == 0 } ?? true,
      "The bias does not match \(rows) rows of \(weights.outputs) outputs.")
    guard rows > 0, weights.outputs > 0 else { return }
    let chunks = chunks()
    let blocks = (rows + Self.blockRows - 1) / Self.blockRows
    // Enough tasks that the last ones to finish wait little, but at least four panels each to repay the gathering.
    let wanted = (8 * context.threads + blocks - 1) / blocks
    let splits = max(1, min(wanted, weights.panels / 4))
    try context.parallel(blocks * splits) { task in
      let block = task % blocks, split = task / blocks
      let rowRange = block * Self.blockRows..<min(rows, (block + 1) * Self.blockRows)
      let panels = weights.panels * split / splits..<weights.panels * (split + 1) / splits
      multiply(rowRange, panels: panels, chunks: chunks, in: context)
    }
  }

  /// A run of the inner dimension.
  struct Chunk {
    let inner: Range<Int>
    /// Which segments of the patches it covers; empty for a matrix.
    let segments: Range<Int>
  }

  private func chunks() -> [Chunk] {
    switch left {
    case .matrix:
      // Without inputs there is one empty chunk still: the result begins at its bias.
      return stride(from: 0, to: max(weights.inputs, 1), by: Self.chunkLength).map {
        Chunk(inner: $0..<min(weights.inputs, $0 + Self.chunkLength), segments: 0..<0)
      }
    case .patches(let patches):
      return patches.chunks
    }
  }

  private func multiply(_ rows: Range<Int>, panels: Range<Int>, chunks: [Chunk], in context: ExecutionContext) {
    let gathered = TensorStorage(count: rows.count * Self.gatheredStride)
    let widened = TensorStorage(count: Self.chunkLength * PackedMatrix.panelWidth)
    // A task of a large product can last a second where the kernels are slow: it ends within a chunk of a cancellation.
    for (index, chunk) in chunks.enumerated() where !context.isCancelled {
      let (a, stride) = gather(chunk, rows: rows, into: gathered.pointer)
      for panel in panels {
        let b = weights.panel(panel, rows: chunk.inner, scratch: widened.pointer)
        let columns = panel * PackedMatrix.panelWidth..<min(weights.outputs, (panel + 1) * PackedMatrix.panelWidth)
        if index == 0 {
          begin(rows, columns: columns, a: a, stride: stride, k: chunk.inner.count, b: b)
        } else {
          accumulate(rows, columns: columns, a: a, stride: stride, k: chunk.inner.count, b: b)
        }
        if index == chunks.count - 1 { finish(rows, columns: columns) }
      }
    }
  }

  private func gather(
    _ chunk: Chunk, rows: Range<Int>, into buffer: UnsafeMutablePointer<Float>
  ) -> (UnsafePointer<Float>, Int) {
    switch left {
    case .matrix(let pointer, let stride):
      let start = pointer + rows.lowerBound * stride + chunk.inner.lowerBound
      // Narrow matrices are as good where they are.
      if stride <= 2 * Self.chunkLength { return (start, stride) }
      for row in 0..<rows.count {
        (buffer + row * Self.gatheredStride).update(from: start + row * stride, count: chunk.inner.count)
      }
    case .patches(let patches):
      patches.gather(chunk.segments, rows: rows, into: buffer, stride: Self.gatheredStride)
    }
    return (UnsafePointer(buffer), Self.gatheredStride)
  }

  /// The first chunk: the result begins at bias and residual. Where rows have biases of their own, each run of them is one call.
  private func begin(_ rows: Range<Int>, columns: Range<Int>, a: UnsafePointer<Float>, stride: Int, k: Int, b: UnsafePointer<Float>) {
    let outputs = weights.outputs
    let rowsPerBias = bias.map { self.rows / max($0.shape.rows, 1) } ?? self.rows
    var row = rows.lowerBound
    while row < rows.upperBound {
      let group = row / rowsPerBias
      let end = min(rows.upperBound, (group + 1) * rowsPerBias)
      Kernels.active.gemm_panel(
        end - row, columns.count, k, a + (row - rows.lowerBound) * stride, stride, b,
        result.mutablePointer + row * outputs + columns.lowerBound, outputs, Int32(CK_BEGIN_FRESH),
        bias.map { $0.pointer + group * outputs + columns.lowerBound },
        residual.map { $0.pointer + row * outputs + columns.lowerBound }, outputs)
      row = end
    }
  }

  private func accumulate(
    _ rows: Range<Int>, columns: Range<Int>, a: UnsafePointer<Float>, stride: Int, k: Int, b: UnsafePointer<Float>
  ) {
    let outputs = weights.outputs
    Kernels.active.gemm_panel(
      rows.count, columns.count, k, a, stride, b, result.mutablePointer + rows.lowerBound * outputs + columns.lowerBound, outputs,
      Int32(CK_BEGIN_ACCUMULATE), nil, nil, 0)
  }

  private func finish(_ rows: Range<Int>, columns: Range<Int>) {
    guard activation != .none else { return }
    let outputs = weights.outputs
    let start = result.mutablePointer + rows.lowerBound * outputs + columns.lowerBound
    Kernels.active.activate(activation.code, rows.count, columns.count, start, outputs, start, outputs)
  }
}
