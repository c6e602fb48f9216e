import CKernels

extension Tensor {
  /// Scaled dot-product attention of several heads, softmax(Q · Kᵀ · scale) · V, in tiles: memory grows with the number of tokens,
  /// not with its square. Source: Vaswani et al. 2017; the tiles after Dao et al. 2022 (FlashAttention).
  ///
  /// - Parameters:
  ///   - queries: `[N, L, heads · d]`.
  ///   - keys: `[N, S, heads · d]`.
  ///   - values: `[N, S, heads · d]`.
  ///   - scale: usually d^-½.
  ///   - causal: a token sees itself and those before it.
  /// - Returns: `[N, L, heads · d]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public static func attention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool = false, in context: ExecutionContext
  ) throws -> Tensor {
    precondition(
      queries.shape.rank == 3 && keys.shape == values.shape && keys.shape[0] == queries.shape[0]
        && keys.shape.columns == queries.shape.columns && heads > 0 && queries.shape.columns % heads == 0,
      "\(heads) heads of \(queries.shape), \(keys.shape), \(values.shape).")
    let result = Tensor(uninitialized: queries.shape)
    let attention = try TiledAttention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, result: result, in: context)
    try attention.run(in: context)
    return result
  }
}

/// Attention cut into tasks: one head of one sample for a block of queries, which meets the keys block by block.
private struct TiledAttention {
  let queries: Tensor
  let heads: Int
  let scale: Float
  let causal: Bool
  let result: Tensor
  let keyCount: Int
  let width: Int
  /// Keys as panels of 32, a row for each feature: `[N · heads][S / 32][d][32]`.
  let packedKeys: TensorStorage
  /// Values as panels of 32 features, a row for each key: `[N · heads][d / 32][S][32]`.
  let packedValues: TensorStorage

  private static let queryBlock = 84
  private static let keyBlock = 256
  /// Floats between rows of scores: no power of two, so that rows do not fall on the same cache sets.
  private static let scoreStride = keyBlock + 16
  private static let panel = 32

  private var keyPanels: Int { (keyCount + 31) / 32 }
  private var valuePanels: Int { (width + 31) / 32 }
  /// Features of a head, rounded up to what the matrix kernel does at once: the sums of a block are made with zeros beside them.
  private var paddedWidth: Int { (width + 7) / 8 * 8 }
  private var stride: Int { heads * width }

  init(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, result: Tensor, in context: ExecutionContext
  ) throws {
    (self.queries, self.heads, self.scale, self.causal, self.result) = (queries, heads, scale, causal, result)
    keyCount = keys.shape[1]
    width = keys.shape[2] / heads
    let all = keys.shape[0] * heads
    packedKeys = TensorStorage(count: all * ((keyCount + 31) / 32) * 32 * width)
    packedValues = TensorStorage(count: all * ((width + 31) / 32) * 32 * keyCount)
    try context.parallel(all) { pair in
      packKeys(keys, pair: pair)
      packValues(values, pair: pair)
    }
  }

  private func packKeys(_ keys: Tensor, pair: Int) {
    let source = keys.pointer + pair / heads * keyCount * stride + pair % heads * width
    for index in 0..<keyPanels {
      let target = packedKeys.pointer + (pair * keyPanels + index) * Self.panel * width
      let valid = min(Self.panel, keyCount - index * Self.panel)
      if valid < Self.panel { target.update(repeating: 0, count: Self.panel * width) }
      for key in 0..<valid {
        let row = source + (index * Self.panel + key) * stride
        for feature in 0..<width { target[feature * Self.panel + key] = row[feature] }
      }
    }
  }

  private func packValues(_ values: Tensor, pair: Int) {
    let source = values.pointer + pair / heads * keyCount * stride + pair % heads * width
    for index in 0..<valuePanels {
      let target = packedValues.pointer + (pair * valuePanels + index) * Self.panel * keyCount
      let valid = min(Self.panel, width - index * Self.panel)
      for key in 0..<keyCount {
        let row = target + key * Self.panel
        row.update(from: source + key * stride + index * Self.panel, count: valid)
        if valid < Self.panel { (row + valid).update(repeating: 0, count: Self.panel - valid) }
      }
    }
  }

  func run(in context: ExecutionContext) throws {
    let length = queries.shape[1]
    let blocks = (length + Self.queryBlock - 1) / Self.queryBlock
    let pairs = queries.shape[0] * heads
    guard length > 0 else { return }
    try context.parallel(pairs * blocks) { task in
      let begin = task % blocks * Self.queryBlock
      attend(pair: task / blocks, queries: begin..<min(length, begin + Self.queryBlock))
    }
  }

  private func attend(pair: Int, queries range: Range<Int>) {
    let offset = (pair / heads * queries.shape[1] + range.lowerBound) * stride + pair % heads * width
    let scores = TensorStorage(count: range.count * Self.scoreStride)
    let sums = TensorStorage(count: range.count * paddedWidth)
    var state = SoftmaxState(rows: range.count)
    // Who sees nothing adds nothing.
    if keyCount == 0 { sums.pointer.update(repeating: 0, count: sums.count) }
    for begin in Swift.stride(from: 0, to: causal ? min(keyCount, range.upperBound) : keyCount, by: Self.keyBlock) {
      let keys = begin..<min(keyCount, begin + Self.keyBlock)
      score(queries.pointer + offset, rows: range, keys: keys, pair: pair, into: scores.pointer)
      if causal { mask(scores.pointer, rows: range, keys: keys) }
      state.take(scores.pointer, columns: keys.count, stride: Self.scoreStride, scale: scale)
      if begin > 0 { state.rescale(sums.pointer, columns: paddedWidth, stride: paddedWidth) }
      gather(scores.pointer, rows: range.count, keys: keys, pair: pair, into: sums.pointer)
    }
    state.normalize(sums.pointer, columns: paddedWidth, stride: paddedWidth)
    for row in 0..<range.count {
      (result.mutablePointer + offset + row * stride).update(from: sums.pointer + row * paddedWidth, count: width)
    }
  }

  /// scores = Q · Kᵀ, whole panels: the last one's keys beyond the end are zeros.
  private func score(
    _ query: UnsafePointer<Float>, rows: Range<Int>, keys: Range<Int>, pair: Int, into scores: UnsafeMutablePointer<Float>
  ) {
    for first in Swift.stride(from: keys.lowerBound, to: keys.upperBound, by: Self.panel) {
      Kernels.active.gemm_panel(
        rows.count, Self.panel, width, query, stride,
        packedKeys.pointer + (pair * keyPanels + first / Self.panel) * Self.panel * width, scores + first - keys.lowerBound,
        Self.scoreStride, Int32(CK_BEGIN_FRESH), nil, nil, 0)
    }
  }

  private func mask(_ scores: UnsafeMutablePointer<Float>, rows: Range<Int>, keys: Range<Int>) {
    for (index, row) in rows.enumerated() where row + 1 < keys.upperBound {
      let first = max(row + 1, keys.lowerBound) - keys.lowerBound
      (scores + index * Self.scoreStride + first).update(repeating: -.infinity, count: keys.count - first)
    }
  }

  /// sums += scores · V.
  private func gather(_ scores: UnsafePointer<Float>, rows: Int, keys: Range<Int>, pair: Int, into sums: UnsafeMutablePointer<Float>) {
    let begin = Int32(keys.lowerBound == 0 ? CK_BEGIN_FRESH : CK_BEGIN_ACCUMULATE)
    for index in 0..<valuePanels {
      Kernels.active.gemm_panel(
        rows, min(Self.panel, paddedWidth - index * Self.panel), keys.count, scores, Self.scoreStride,
        packedValues.pointer + ((pair * valuePanels + index) * keyCount + keys.lowerBound) * Self.panel,
        sums + index * Self.panel, paddedWidth, begin, nil, nil, 0)
    }
  }
}
