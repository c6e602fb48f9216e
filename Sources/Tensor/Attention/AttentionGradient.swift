import CLatentDiffusionKernels

extension CPUEngine {
  /// With P = softmax(Q · Kᵀ · scale): dV = Pᵀ · dO, dP = dO · Vᵀ, dS = P ∘ (dP − Σ P ∘ dP) · scale, dQ = dS · K and dK = dSᵀ · Q. Probabilities are made
  /// anew, some rows at a time. Source: Dao et al. 2022 (FlashAttention), PyTorch's `scaled_dot_product_attention`.
  public func attentionGradient(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, gradient: Tensor, in context: ExecutionContext
  ) throws -> (queries: Tensor, keys: Tensor, values: Tensor) {
    let own = AttentionGradient(
      queries: queries, keys: keys, values: values, gradient: gradient, heads: heads, scale: scale, causal: causal)
    try context.parallel(queries.shape[0] * heads) { own.run(pair: $0, in: context) }
    return (own.queryGradient, own.keyGradient, own.valueGradient)
  }
}

/// The gradient of attention, with a task for each head of a sample.
struct AttentionGradient {
  private let queries: Tensor
  private let keys: Tensor
  private let values: Tensor
  private let gradient: Tensor
  private let heads: Int
  private let scale: Float
  private let causal: Bool
  let queryGradient: Tensor
  let keyGradient: Tensor
  let valueGradient: Tensor
  private static let panel = PackedMatrix.panelWidth
  /// Queries in a block: a multiple of the kernels' tiles, so few that their scores stay in the second-level cache.
  private static let block = 56

  init(queries: Tensor, keys: Tensor, values: Tensor, gradient: Tensor, heads: Int, scale: Float, causal: Bool) {
    (self.queries, self.keys, self.values, self.gradient) = (queries, keys, values, gradient)
    (self.heads, self.scale, self.causal) = (heads, scale, causal)
    queryGradient = Tensor(uninitialized: queries.shape)
    keyGradient = Tensor(repeating: 0, shape: keys.shape)
    valueGradient = Tensor(repeating: 0, shape: values.shape)
  }

  private var length: Int { queries.shape[1] }
  private var keyCount: Int { keys.shape[1] }
  private var stride: Int { queries.shape[2] }
  private var width: Int { stride / heads }
  private var widthPanels: Int { (width + Self.panel - 1) / Self.panel }
  private var keyPanels: Int { (keyCount + Self.panel - 1) / Self.panel }

  /// The temporary buffers of a task, in floats each.
  static func buffers(keys: Int, width: Int) -> [Int] {
    let keyPanels = (keys + panel - 1) / panel, widthPanels = (width + panel - 1) / panel
    return [keyPanels * panel * width, keyPanels * panel * width, widthPanels * panel * keys]
      + Array(repeating: block * (keyPanels * panel + 16), count: 2) + [keyPanels * panel * panel]
      + Array(repeating: widthPanels * panel * panel, count: 2)
  }

  /// What a task writes and reads again.
  private struct Buffers {
    /// Keys and values turned, for scores and for the gradients of probabilities: `[S / 32][d][32]`. Keys as they are: `[d / 32][S][32]`.
    let turnedKeys: TensorStorage, turnedValues: TensorStorage, keys: TensorStorage
    /// Probabilities and their gradients, `[block][scoreStride]`.
    let probabilities: TensorStorage, slopes: TensorStorage
    let scoreStride: Int
    /// 32 rows of either, turned: `[S][32]`.
    let turned: TensorStorage
    /// 32 rows of queries, or of the result's gradient: `[d / 32][32][32]`.
    let rows: TensorStorage
  }

  func run(pair: Int, in context: ExecutionContext) {
    let offset = pair % heads * width, sample = pair / heads
    let keyRows = keys.pointer + sample * keyCount * stride + offset, valueRows = values.pointer + sample * keyCount * stride + offset
    let scoreStride = keyPanels * Self.panel + 16
    let buffers = Buffers(
      turnedKeys: TensorStorage(count: keyPanels * Self.panel * width), turnedValues: TensorStorage(count: keyPanels * Self.panel * width),
      keys: TensorStorage(count: widthPanels * Self.panel * keyCount), probabilities: TensorStorage(count: Self.block * scoreStride),
      slopes: TensorStorage(count: Self.block * scoreStride), scoreStride: scoreStride,
      turned: TensorStorage(count: keyPanels * Self.panel * Self.panel), rows: TensorStorage(count: widthPanels * Self.panel * Self.panel))
    turn(keyRows, rows: keyCount, columns: width, stride: stride, into: buffers.turnedKeys.pointer)
    turn(valueRows, rows: keyCount, columns: width, stride: stride, into: buffers.turnedValues.pointer)
    pack(keyRows, rows: keyCount, into: buffers.keys.pointer)
    for begin in Swift.stride(from: 0, to: length, by: Self.block) where !context.isCancelled {
      run(
        begin..<min(length, begin + Self.block), at: (sample * length + begin) * stride + offset,
        keysAt: sample * keyCount * stride + offset, buffers)
    }
  }

  /// - Parameters:
  ///   - place: of the head's first query of the block.
  ///   - keyPlace: of the head's first key.
  private func run(_ block: Range<Int>, at place: Int, keysAt keyPlace: Int, _ buffers: Buffers) {
    let (rows, ld) = (block.count, buffers.scoreStride)
    let probabilities = buffers.probabilities.pointer, slopes = buffers.slopes.pointer
    multiply(
      rows, k: width, queries.pointer + place, stride: stride, buffers.turnedKeys.pointer, columns: keyCount, into: probabilities,
      stride: ld)
    makeProbabilities(block, probabilities, stride: ld)
    multiply(
      rows, k: width, gradient.pointer + place, stride: stride, buffers.turnedValues.pointer, columns: keyCount, into: slopes, stride: ld)
    Kernels.active.softmax_back(rows, keyCount, scale, probabilities, ld, slopes, ld)
    multiply(
      rows, k: keyCount, slopes, stride: ld, buffers.keys.pointer, columns: width, into: queryGradient.mutablePointer + place,
      stride: stride)
    for first in Swift.stride(from: 0, to: rows, by: Self.panel) {
      let count = min(Self.panel, rows - first)
      addProduct(
        probabilities + first * ld, gradient.pointer + place + first * stride, rows: count, to: valueGradient.mutablePointer + keyPlace,
        buffers)
      addProduct(
        slopes + first * ld, queries.pointer + place + first * stride, rows: count, to: keyGradient.mutablePointer + keyPlace, buffers)
    }
  }

  /// Scores become probabilities.
  private func makeProbabilities(_ block: Range<Int>, _ scores: UnsafeMutablePointer<Float>, stride ld: Int) {
    var maximum = [Float](repeating: -.infinity, count: block.count), sums = [Float](repeating: 0, count: block.count), rescale = sums
    if causal {
      for (row, query) in block.enumerated() where query + 1 < keyCount {
        (scores + row * ld + query + 1).update(repeating: -.infinity, count: keyCount - query - 1)
      }
    }
    Kernels.active.softmax_block(block.count, keyCount, scale, scores, ld, &maximum, &sums, &rescale)
    Kernels.active.scale_rows(block.count, keyCount, sums.map { 1 / $0 }, scores, ld)
  }

  /// c = a · panels, for the first `columns` columns.
  private func multiply(
    _ rows: Int, k: Int, _ a: UnsafePointer<Float>, stride lda: Int, _ panels: UnsafePointer<Float>, columns: Int,
    into c: UnsafeMutablePointer<Float>, stride ldc: Int, begin: Int = Int(CK_BEGIN_FRESH)
  ) {
    for first in Swift.stride(from: 0, to: columns, by: Self.panel) {
      Kernels.active.gemm_panel(
        rows, min(Self.panel, columns - first), k, a, lda, panels + first * k, c + first, ldc, Int32(begin), nil, nil, 0)
    }
  }

  /// sums += aᵀ · b: up to 32 rows a of S values and b of d values, sums `[S, d]`.
  private func addProduct(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, rows: Int, to sums: UnsafeMutablePointer<Float>, _ buffers: Buffers
  ) {
    turn(a, rows: rows, columns: keyCount, stride: buffers.scoreStride, into: buffers.turned.pointer)
    pack(b, rows: rows, into: buffers.rows.pointer)
    multiply(
      keyCount, k: rows, buffers.turned.pointer, stride: Self.panel, buffers.rows.pointer, columns: width, into: sums, stride: stride,
      begin: Int(CK_BEGIN_ACCUMULATE))
  }

  /// Rows in panels of 32 with a line for each of their values: `[rows / 32][columns][32]`.
  private func turn(_ source: UnsafePointer<Float>, rows: Int, columns: Int, stride: Int, into target: UnsafeMutablePointer<Float>) {
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: Self.panel) { lines in
      guard let all = lines.baseAddress else { return }
      for first in Swift.stride(from: 0, to: rows, by: Self.panel) {
        for line in 0..<Self.panel { lines[line] = first + line < rows ? UnsafeRawPointer(source + (first + line) * stride) : nil }
        ck_pack_panel(4, columns, 1, all, target + first * columns)
      }
    }
  }

  /// Rows of d values in panels of 32 values with a line for each row: `[d / 32][rows][32]`.
  private func pack(_ source: UnsafePointer<Float>, rows: Int, into target: UnsafeMutablePointer<Float>) {
    for first in Swift.stride(from: 0, to: width, by: Self.panel) {
      let count = min(Self.panel, width - first)
      for row in 0..<rows {
        let line = target + (first * rows + row * Self.panel)
        line.update(from: source + row * stride + first, count: count)
        if count < Self.panel { (line + count).update(repeating: 0, count: Self.panel - count) }
      }
    }
  }
}
