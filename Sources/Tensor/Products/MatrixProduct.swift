import CLatentDiffusionKernels

extension Tensor {
  /// The product of this tensor's rows with weights, `[…, K]` · `[M, K]`ᵀ → `[…, M]`, in one pass over the result:
  /// activation(x · Wᵀ + bias + residual). If the weights are gated, M is half their outputs, and the result is the first half
  /// of x · Wᵀ + bias times the GELU of the second half.
  ///
  /// - Parameters:
  ///   - bias: `[M]`; for gated weights `[2M]` in the order of `PackedMatrix.arranged`.
  ///   - residual: of the result's shape; for gated weights `[…, 2M]` in the order of `PackedMatrix.arranged`, added before the gating.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public func multiplied(
    by weights: PackedMatrix, bias: Tensor? = nil, adding residual: Tensor? = nil, activation: Activation = .none,
    in context: ExecutionContext
  ) throws -> Tensor {
    precondition(shape.columns == weights.inputs, "\(shape) cannot be multiplied by [\(weights.outputs), \(weights.inputs)].")
    return try context.engine.product(self, with: weights, bias: bias, adding: residual, activation: activation, in: context)
  }
}

extension CPUEngine {
  public func product(
    _ x: Tensor, with weights: PackedMatrix, bias: Tensor?, adding residual: Tensor?, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor {
    let weights = try weights.resident(in: context)
    let result = Tensor(uninitialized: Shape(x.shape.dimensions.dropLast() + [weights.resultColumns]))
    try MatrixProduct(
      left: .matrix(x.pointer, stride: x.shape.columns), rows: x.shape.rows, weights: weights, result: result, bias: bias,
      residual: residual,
      activation: activation
    ).run(in: context)
    return result
  }
}

/// The left operand of a product: a matrix whose rows need not exist in memory.
enum LeftOperand {
  case matrix(UnsafePointer<Float>, stride: Int)
  case patches(Patches)
  /// Rows that are gathered already.
  case gathered(Tensor)
  /// Rows that are gathered and crossed already, chunk by chunk.
  case crossed([CrossedRows], Tensor)
  /// Rows that are gathered and quantised already, chunk by chunk.
  case quantized([QuantizedRows])
  /// Rows that are gathered and converted to words already, in the order of their values.
  case words(Tensor)

  /// Whether rows can be read in place. Rows of wide matrices compete for the same cache sets, so these are gathered.
  var isContiguous: Bool {
    switch self {
    case .matrix(_, let stride): stride <= 2 * MatrixProduct.chunkLength
    case .patches: false
    case .gathered, .crossed, .quantized, .words: true
    }
  }

  var isQuantized: Bool { if case .quantized = self { true } else { false } }

  /// A chunk of some rows as floats, in place or gathered into `buffer`, and the stride between rows.
  /// - Parameter once: whether the rows are read only once, so that gathering them gains nothing.
  fileprivate func rows(
    _ rows: Range<Int>, of chunk: MatrixProduct.Chunk, once: Bool, gatheredInto buffer: UnsafeMutablePointer<Float>
  ) -> (UnsafePointer<Float>, Int) {
    switch self {
    case .matrix(let pointer, let stride) where once || isContiguous:
      return (pointer + rows.lowerBound * stride + chunk.inner.lowerBound, stride)
    case .gathered(let tensor):
      return (tensor.pointer + rows.lowerBound * tensor.shape.columns + chunk.inner.lowerBound, tensor.shape.columns)
    default:
      gather(chunk, rows: rows, into: buffer, stride: MatrixProduct.gatheredStride)
      return (UnsafePointer(buffer), MatrixProduct.gatheredStride)
    }
  }

  fileprivate func gather(
    _ chunk: MatrixProduct.Chunk, rows: Range<Int>, into buffer: UnsafeMutablePointer<Float>, stride: Int
  ) {
    switch self {
    case .matrix(let pointer, let width):
      let start = pointer + rows.lowerBound * width + chunk.inner.lowerBound
      for row in 0..<rows.count { (buffer + row * stride).update(from: start + row * width, count: chunk.inner.count) }
    case .patches(let patches):
      patches.gather(chunk.segments, rows: rows, into: buffer, stride: stride)
    case .gathered, .crossed, .quantized, .words:
      break
    }
  }
}

/// One product of activations with packed weights, cut into tasks.
///
/// A task computes a block of rows for a run of panels. It goes over the inner dimension in chunks: the rows' chunk is gathered into a
/// contiguous buffer that stays in the second-level cache, and is multiplied by each panel's chunk. Every element of the result sums
/// its products in the same order however the work is cut, so it does not depend on the number of threads.
struct MatrixProduct {
  private(set) var left: LeftOperand
  let rows: Int
  let weights: PackedMatrix
  let result: Tensor
  /// `[M]`, or `[rows / n, M]` with a bias for each n rows.
  let bias: Tensor?
  let residual: Tensor?
  let activation: Activation
  /// The index of the first row in the result, if this product makes only a part of the result.
  var firstRow = 0
  /// The weights' mean magnitude if the rows are to be crossed; else nil.
  private(set) var level: Float?
  /// The form of the factors.
  private(set) var factors = ProductFactors.floats

  /// The most rows in a block: a multiple of the kernels' tile heights (14, 12 and 6; 32), whose chunk takes up to two thirds of the second-level cache.
  /// More than 252 gain nothing in a larger one. With words, blocks are larger, so that converting a panel pays off.
  private static let floatRows = max(84, min(252, CacheSizes.machine.secondLevel * 2 / 3 / (84 * 4 * gatheredStride) * 84)), wordRows = 512
  private var blockRows: Int { factors.isOfTiles ? Self.wordRows : Self.floatRows }
  /// The inner elements of a chunk. It is the same on all machines, because crossed and 8-bit products have a scale for each chunk of a row.
  static let chunkLength = 320
  /// The stride between a chunk's gathered rows, in floats.
  fileprivate static let gatheredStride = gatheredStride(chunkLength)
  /// The stride between rows of `words` words: no power of two, so that rows do not compete for the same cache sets.
  private static func gatheredStride(_ words: Int) -> Int { (words + 31) / 32 * 32 + 16 }

  /// The temporary buffers of a product of many rows that live at once, in floats each.
  static func buffers(threads: Int) -> [Int] {
    let isOfTiles = ProductFactors.split.isAvailable, widened = (chunkLength + 1) * PackedMatrix.panelWidth
    let own = [(isOfTiles ? wordRows : floatRows) * gatheredStride, widened] + (isOfTiles ? [widened] : [])
    return Array(repeating: own, count: threads).flatMap { $0 }
  }

  func run(in context: ExecutionContext) throws {
    precondition(!weights.isGating || activation == .none, "Gated products have their own activation.")
    precondition(
      residual.map { $0.shape.count == result.shape.rows * weights.biasColumns && firstRow == 0 } ?? true,
      "The residual does not match \(result.shape).")
    precondition(
      bias.map { $0.shape.columns == weights.biasColumns && rows % max($0.shape.rows, 1) == 0 } ?? true,
      "The bias does not match \(rows) rows of \(weights.outputs) outputs.")
    guard rows > 0, weights.outputs > 0 else { return }
    let chunks = chunks()
    var product = self
    product.factors = wantedFactors
    let (blocks, splits) = product.cut(chunks: chunks.count, threads: context.threads)
    product.level = isCrossed ? weights.level : nil
    // A multiple of the register tile.
    let tile = isCrossed ? Kernels.active.crossed_rows : product.factors.tileRows
    let blockRows = min(rows, ((rows + blocks - 1) / blocks + tile - 1) / tile * tile)
    if splits > 1 { product = try product.gathered(chunks, in: context) }
    try context.parallel((rows + blockRows - 1) / blockRows * splits) { task in
      let block = task / splits, split = task % splits
      let rowRange = block * blockRows..<min(rows, (block + 1) * blockRows)
      let panels = weights.panels * split / splits..<weights.panels * (split + 1) / splits
      product.multiply(rowRange, panels: panels, chunks: chunks, in: context)
    }
  }

  /// The same product with its left operand gathered first, for when several tasks would gather the same rows.
  private func gathered(_ chunks: [Chunk], in context: ExecutionContext) throws -> MatrixProduct {
    var product = self
    product.level = nil
    if weights.hasIntegerProduct {
      product.left = .quantized(try quantizedRows(chunks, in: context))
    } else if factors != .floats {
      product.left = .words(try wordRows(chunks, in: context))
    } else if level != nil || !left.isContiguous {
      product.left = try gatheredRows(chunks, in: context)
    }
    return product
  }

  private func gatheredRows(_ chunks: [Chunk], in context: ExecutionContext) throws -> LeftOperand {
    let stride = Self.gatheredStride(weights.inputs)
    let buffer = Tensor(uninitialized: [rows, stride])
    let crossed = level.map { level in
      chunks.map { CrossedRows(values: buffer.mutablePointer + $0.inner.lowerBound, stride: stride, rows: rows, level: level) }
    }
    try forRuns(in: context) { range in
      for (index, chunk) in chunks.enumerated() {
        let target = buffer.mutablePointer + range.lowerBound * stride + chunk.inner.lowerBound
        left.gather(chunk, rows: range, into: target, stride: stride)
        crossed?[index].take(range, from: target, stride: stride, k: chunk.inner.count)
      }
    }
    return crossed.map { .crossed($0, buffer) } ?? .gathered(buffer)
  }

  private func wordRows(_ chunks: [Chunk], in context: ExecutionContext) throws -> Tensor {
    let buffer = Tensor(uninitialized: [rows, Self.gatheredStride(factors.words(weights.inputs))])
    let stride = buffer.shape.columns
    try forRuns(in: context) { range in
      let scratch = TensorStorage(count: range.count * Self.gatheredStride)
      for chunk in chunks {
        let (x, ldx) = left.rows(range, of: chunk, once: true, gatheredInto: scratch.pointer)
        let target = buffer.mutablePointer + range.lowerBound * stride + factors.words(chunk.inner.lowerBound)
        factors.takeRows(range.count, k: chunk.inner.count, x, stride: ldx, into: target, stride: stride)
      }
    }
    return buffer
  }

  private func quantizedRows(_ chunks: [Chunk], in context: ExecutionContext) throws -> [QuantizedRows] {
    let quantized = chunks.map { QuantizedRows(rows: rows, k: $0.inner.count) }
    try forRuns(in: context) { range in
      let scratch = TensorStorage(count: range.count * Self.gatheredStride)
      for (index, chunk) in chunks.enumerated() {
        let (x, stride) = left.rows(range, of: chunk, once: true, gatheredInto: scratch.pointer)
        quantized[index].take(range, from: x, stride: stride)
      }
    }
    return quantized
  }

  /// Runs `body` for sixteen rows at a time, in parallel.
  private func forRuns(in context: ExecutionContext, _ body: (Range<Int>) -> Void) throws {
    let run = 16
    try context.parallel((rows + run - 1) / run) { body($0 * run..<min(rows, ($0 + 1) * run)) }
  }

  /// Whether two of three products are made as one. This depends neither on the number of pictures nor on whether the result is made in parts, so
  /// that the results do not either.
  private var isCrossed: Bool {
    let rows = result.shape.rows / max(1, result.shape[0])
    // From eight rows on, the additional work for each column of the weights pays off.
    return rows >= 8 && weights.isCrossed(products: rows * weights.inputs * weights.outputs)
  }

  /// The form of the factors. It does not depend on the number of rows, so that any number of pictures and any packing of weights give the same results.
  private var wantedFactors: ProductFactors {
    guard !weights.hasIntegerProduct, weights.biasColumns % PackedMatrix.panelWidth == 0 else { return .floats }
    return .ofWeights(weights, channels: channels)
  }

  /// The length of runs in the inner dimension that chunks do not cut, other than at multiples of `chunkLength`.
  private var channels: Int {
    guard case .patches(let patches) = left else { return weights.inputs }
    return patches.granularity
  }

  /// The fewest products in a task: about 5 µs.
  private static let taskProducts = 1 << 18

  /// The number of blocks of rows, and of runs of panels, that the work is cut into.
  private func cut(chunks: Int, threads: Int) -> (blocks: Int, splits: Int) {
    let blocks = (rows + blockRows - 1) / blockRows
    // Enough tasks that threads finish at about the same time, if each task is large enough to be worth starting.
    // A task also unpacks its weights, which takes as long as the products of some rows.
    let products = (rows + 8) * weights.panels * PackedMatrix.panelWidth * weights.inputs
    let wanted = max(1, min(8 * threads, products / Self.taskProducts))
    let least = chunks > 1 && weights.isGating ? (weights.panels + Self.gatedPanels - 1) / Self.gatedPanels : 1
    // Every task gathers its own rows, which pays off from four panels on. If that makes too few tasks, they get fewer panels first, and fewer rows
    // only then, because each block of rows unpacks the weights again.
    let few = min(wanted, 4 * threads)
    let most = blocks * (weights.panels / 4) >= few ? weights.panels / 4 : weights.panels
    let splits = max(least, min((wanted + blocks - 1) / blocks, most))
    return (max(blocks, (few + splits - 1) / splits), splits)
  }

  /// Panels in a task whose sums stay in a buffer until the last chunk: half a megabyte.
  private static let gatedPanels = 16

  /// A run of the inner dimension.
  struct Chunk {
    let inner: Range<Int>
    /// The segments of the patches that it covers; empty for a matrix.
    let segments: Range<Int>
  }

  private func chunks() -> [Chunk] {
    switch left {
    case .matrix, .gathered, .crossed, .quantized, .words:
      // Without inputs there is still one empty chunk, because the first chunk writes the bias.
      return stride(from: 0, to: max(weights.inputs, 1), by: Self.chunkLength).map {
        Chunk(inner: $0..<min(weights.inputs, $0 + Self.chunkLength), segments: 0..<0)
      }
    case .patches(let patches):
      return patches.chunks
    }
  }

  private func multiply(_ rows: Range<Int>, panels: Range<Int>, chunks: [Chunk], in context: ExecutionContext) {
    let gathered = TensorStorage(count: rows.count * Self.gatheredStride)
    // Includes room for a panel's sums after its weights, for crossed products.
    let widened = TensorStorage(count: (Self.chunkLength + 1) * PackedMatrix.panelWidth)
    let words = TensorStorage(count: factors == .floats ? 0 : Self.chunkLength * PackedMatrix.panelWidth)
    var ownQuantized = weights.hasIntegerProduct && !left.isQuantized ? QuantizedRows(rows: rows.count, k: Self.chunkLength) : nil
    let ownCrossed = level.map { CrossedRows(values: gathered.pointer, stride: Self.gatheredStride, rows: rows.count, level: $0) }
    // Sums of gated panels. With a single chunk there is room for one panel, because each panel is finished immediately.
    let gated = weights.isGating ? TensorStorage(count: (chunks.count > 1 ? panels.count : 1) * rows.count * PackedMatrix.panelWidth) : nil
    // A task of a large product can last a second if the kernels are slow, so cancellation is checked before each chunk.
    for (index, chunk) in chunks.enumerated() where !context.isCancelled {
      let (a, stride) = self.rows(
        rows, of: chunk, once: ownCrossed != nil || ownQuantized != nil || factors != .floats, gatheredInto: gathered.pointer)
      ownCrossed?.take(0..<rows.count, from: a, stride: stride, k: chunk.inner.count)
      ownQuantized?.k = chunk.inner.count
      ownQuantized?.take(0..<rows.count, from: a, stride: stride)
      let crossed = if case .crossed(let chunks, _) = left { chunks[index].rows(from: rows.lowerBound) } else { ownCrossed }
      let quantized = if case .quantized(let chunks) = left { chunks[index].rows(from: rows.lowerBound) } else { ownQuantized }
      for panel in panels {
        let columns = panel * PackedMatrix.panelWidth..<min(weights.biasColumns, (panel + 1) * PackedMatrix.panelWidth)
        let target: Target
        if let gated {
          let place = chunks.count > 1 ? panel - panels.lowerBound : 0
          target = Target(pointer: gated.pointer + place * rows.count * PackedMatrix.panelWidth, stride: PackedMatrix.panelWidth)
        } else {
          let start = result.mutablePointer + (firstRow + rows.lowerBound) * weights.biasColumns + columns.lowerBound
          target = Target(pointer: start, stride: weights.biasColumns)
        }
        let factor: Factors =
          if let quantized, let bytes = weights.form.bytes(weights.rows(chunk.inner, ofPanel: panel)) {
            .bytes(quantized, bytes)
          } else if let crossed {
            .crossed(crossed, CrossedPanel(weights, panel: panel, rows: chunk.inner, scratch: widened.pointer))
          } else if factors != .floats {
            .words(
              factors, a, stride: stride,
              factors.panel(weights, panel, rows: chunk.inner, widenedInto: widened.pointer, into: words.pointer))
          } else {
            .words(.floats, a, stride: stride, weights.panel(panel, rows: chunk.inner, scratch: widened.pointer))
          }
        if index == 0 {
          begin(rows, columns: columns, k: chunk.inner.count, factor, into: target)
        } else {
          factor.multiply(0..<rows.count, columns: columns.count, k: chunk.inner.count, into: target, beginningAt: nil)
        }
        if index == chunks.count - 1 { finish(rows, panel: panel, columns: columns, target) }
      }
    }
  }

  /// A chunk of some rows in the form that products take, and the stride between rows in words.
  private func rows(
    _ rows: Range<Int>, of chunk: Chunk, once: Bool, gatheredInto buffer: UnsafeMutablePointer<Float>
  ) -> (UnsafePointer<Float>, Int) {
    if case .words(let tensor) = left {
      let stride = tensor.shape.columns
      return (tensor.pointer + rows.lowerBound * stride + factors.words(chunk.inner.lowerBound), stride)
    }
    let (a, stride) = left.rows(rows, of: chunk, once: once, gatheredInto: buffer)
    guard factors != .floats else { return (a, stride) }
    factors.takeRows(rows.count, k: chunk.inner.count, a, stride: stride, into: buffer, stride: Self.gatheredStride)
    return (UnsafePointer(buffer), Self.gatheredStride)
  }

  /// The memory in which the sums of a panel are made.
  private struct Target {
    let pointer: UnsafeMutablePointer<Float>
    let stride: Int
  }

  /// The initial values of a panel's sums.
  private struct Beginning {
    let bias: UnsafePointer<Float>?
    let residual: UnsafePointer<Float>?
    let stride: Int
  }

  /// The factors of a chunk: a block of rows and a panel.
  private enum Factors {
    case words(ProductFactors, UnsafePointer<Float>, stride: Int, UnsafePointer<Float>)
    case bytes(QuantizedRows, QuantizedPanel)
    case crossed(CrossedRows, CrossedPanel)

    /// Makes the sums of some rows, or adds to existing sums if `beginning` is nil.
    func multiply(_ rows: Range<Int>, columns: Int, k: Int, into target: Target, beginningAt beginning: Beginning?) {
      let c = target.pointer + rows.lowerBound * target.stride
      let code = Int32(beginning == nil ? CK_BEGIN_ACCUMULATE : CK_BEGIN_FRESH)
      switch self {
      case .words(let factors, let a, let stride, let panel):
        factors.multiply(
          rows.count, columns: columns, words: factors.words(k), a + rows.lowerBound * stride, stride: stride, panel, into: c,
          stride: target.stride, begin: code, bias: beginning?.bias, residual: beginning?.residual, residualStride: beginning?.stride ?? 0)
      case .bytes(let a, let panel):
        let a = a.rows(from: rows.lowerBound)
        Kernels.active.gemm_panel_q8?(
          rows.count, k, a.values, a.stride, a.scales, a.sums, panel.values, panel.scales, c, target.stride, code, beginning?.bias,
          beginning?.residual, beginning?.stride ?? 0)
      case .crossed(let a, let panel):
        a.rows(from: rows.lowerBound).multiply(
          rows.count, k: k, panel, into: c, stride: target.stride, begin: code, bias: beginning?.bias, residual: beginning?.residual,
          residualStride: beginning?.stride ?? 0)
      }
    }
  }

  /// Multiplies the first chunk. The result begins at bias and residual. If rows have several biases, each group with the same one is one call.
  private func begin(_ rows: Range<Int>, columns: Range<Int>, k: Int, _ factors: Factors, into target: Target) {
    let outputs = weights.biasColumns
    let rowsPerBias = bias.map { self.rows / max($0.shape.rows, 1) } ?? self.rows
    var row = rows.lowerBound
    while row < rows.upperBound {
      let group = row / rowsPerBias
      let end = min(rows.upperBound, (group + 1) * rowsPerBias)
      let beginning = Beginning(
        bias: bias.map { $0.pointer + group * weights.biasColumns + columns.lowerBound },
        residual: residual.map { $0.pointer + row * outputs + columns.lowerBound }, stride: outputs)
      factors.multiply(
        row - rows.lowerBound..<end - rows.lowerBound, columns: columns.count, k: k, into: target, beginningAt: beginning)
      row = end
    }
  }

  private func finish(_ rows: Range<Int>, panel: Int, columns: Range<Int>, _ sums: Target) {
    if weights.isGating {
      // A panel has values in its left half and their gates in its right half.
      let half = PackedMatrix.panelWidth / 2
      let first = panel * half
      Kernels.active.geglu(
        rows.count, min(half, weights.resultColumns - first), sums.pointer, sums.stride, half,
        result.mutablePointer + (firstRow + rows.lowerBound) * weights.resultColumns + first, weights.resultColumns)
    } else if activation != .none {
      Kernels.active.activate(activation.code, rows.count, columns.count, sums.pointer, sums.stride, sums.pointer, sums.stride)
    }
  }
}

/// Rows of a chunk as bytes, with scales that are found when a row is converted: one for the row or, if the kernels want so, for each of its blocks.
/// Source: Jacob et al. 2018.
struct QuantizedRows {
  let values: UnsafeMutablePointer<Int8>
  let stride: Int
  let scales: UnsafeMutablePointer<Float>
  let sums: UnsafeMutablePointer<Int32>
  /// The values in a row: a multiple of a block's, and at most the `k` of `init`.
  var k: Int
  private let storage: TensorStorage

  init(rows: Int, k: Int) {
    // The stride is no power of two, so that rows do not compete for the same cache sets.
    (self.k, stride) = (k, k + 64)
    let blocks = k / Int(CK_BLOCK), scaled = Self.scales(ofBlocks: blocks)
    storage = TensorStorage(count: rows * (stride / 4 + scaled + blocks))
    values = UnsafeMutableRawPointer(storage.pointer).bindMemory(to: Int8.self, capacity: rows * stride)
    scales = storage.pointer + rows * stride / 4
    sums = UnsafeMutableRawPointer(scales + rows * scaled).bindMemory(to: Int32.self, capacity: rows * blocks)
  }

  /// The number of a row's scales.
  private static func scales(ofBlocks blocks: Int) -> Int { Kernels.active.row_scales == 0 ? 1 : blocks }

  /// Converts some rows from those at `x`.
  func take(_ rows: Range<Int>, from x: UnsafePointer<Float>, stride ldx: Int) {
    let target = self.rows(from: rows.lowerBound)
    Kernels.active.quantize_rows(rows.count, k, x, ldx, target.values, stride, target.scales, target.sums)
  }

  func rows(from row: Int) -> QuantizedRows { QuantizedRows(self, from: row) }

  private init(_ other: QuantizedRows, from row: Int) {
    (values, stride, storage, k) = (other.values + row * other.stride, other.stride, other.storage, other.k)
    let blocks = other.k / Int(CK_BLOCK)
    (scales, sums) = (other.scales + row * Self.scales(ofBlocks: blocks), other.sums + row * blocks)
  }
}
