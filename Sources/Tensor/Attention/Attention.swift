import CLatentDiffusionKernels

/// The precision of the factors in products of activations with activations. Sums are always float32.
public enum ProductPrecision: Sendable {
  /// float32, the default.
  case float32
  /// Factors are rounded to 8 significant bits if the processor has bfloat16 instructions (AVX512_BF16, AMX), which are faster; else float32.
  case bfloat16
}

extension Tensor {
  /// Scaled dot-product attention of several heads, softmax(Q · Kᵀ · scale) · V, computed in tiles. Its memory grows with the number of
  /// tokens, not with the square of that number. Source: Vaswani et al. 2017; the tiles after Dao et al. 2022 (FlashAttention).
  ///
  /// - Parameters:
  ///   - queries: `[N, L, heads · d]`.
  ///   - keys: `[N, S, heads · d]`.
  ///   - values: `[N, S, heads · d]`.
  ///   - scale: usually d^-½.
  ///   - causal: each token attends only to itself and to earlier tokens.
  ///   - precision: of queries, keys, values and probabilities in the two products.
  /// - Returns: `[N, L, heads · d]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public static func attention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool = false,
    precision: ProductPrecision = .float32, in context: ExecutionContext
  ) throws -> Tensor {
    precondition(
      queries.shape.rank == 3 && keys.shape == values.shape && keys.shape[0] == queries.shape[0]
        && keys.shape.columns == queries.shape.columns && heads > 0 && queries.shape.columns % heads == 0,
      "\(heads) heads of \(queries.shape), \(keys.shape), \(values.shape).")
    return try context.engine.attention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, precision: precision, in: context)
  }
}

extension CPUEngine {
  public func attention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    in context: ExecutionContext
  ) throws -> Tensor {
    try attention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, precision: precision, remembering: nil,
      in: context)
  }

  /// - Parameter remembered: filled with what the gradient needs of the softmax.
  func attention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    remembering remembered: RememberedSoftmax?, in context: ExecutionContext
  ) throws -> Tensor {
    let result = Tensor(uninitialized: queries.shape)
    let attention = try TiledAttention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal,
      factors: .ofActivations(precision), result: result, remembered: remembered, in: context)
    try attention.run(in: context)
    return result
  }
}

/// Attention cut into tasks. A task computes one head of one sample for a block of queries, and goes over the keys block by block.
private struct TiledAttention {
  let queries: Tensor
  let heads: Int
  let scale: Float
  let causal: Bool
  /// The forms of the factors: `factors` for probabilities and values, `keyFactors` for queries and keys.
  let factors: ProductFactors
  let keyFactors: ProductFactors
  let result: Tensor
  let remembered: RememberedSoftmax?
  let keyCount: Int
  let width: Int
  /// Keys in panels of 32, with a row for each word of features: `[N · heads][S / 32][d][32]`.
  let packedKeys: TensorStorage
  /// Values in panels of 32 features, with a row for each word of keys: `[N · heads][d / 32][S][32]`.
  let packedValues: TensorStorage
  /// Magnitudes and sums for crossed products; nil if those are not used. Keys have sums for each panel, values for each panel and block of keys.
  private let crossedKeys: CrossedHeads?
  private let crossedValues: CrossedHeads?

  /// Queries and keys in a block: multiples of the kernels' tiles. With fast tile products (AMX), reading keys and values and the work per row
  /// take most of the time, so blocks are larger. Their scores take half a megabyte of the second-level cache.
  private var queryBlock: Int { factors.isOfTiles ? 256 : 84 }
  private let keyBlock: Int
  /// The stride between rows of scores, in floats: no power of two, so that rows do not compete for the same cache sets.
  private var scoreStride: Int { keyBlock + 16 }
  private static let panel = 32

  private var keyPanels: Int { (keyCount + 31) / 32 }
  private var valuePanels: Int { (width + 31) / 32 }
  /// The features of a head, rounded up to a multiple of 8 for the matrix kernel. The additional columns of a block's sums are zeros.
  private var paddedWidth: Int { (width + 7) / 8 * 8 }
  private var stride: Int { heads * width }

  init(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, factors: ProductFactors, result: Tensor,
    remembered: RememberedSoftmax?, in context: ExecutionContext
  ) throws {
    (self.queries, self.heads, self.scale, self.causal) = (queries, heads, scale, causal)
    (self.result, self.remembered) = (result, remembered)
    self.factors = factors
    keyCount = keys.shape[1]
    width = keys.shape[2] / heads
    keyFactors = factors.ofDepth(width)
    keyBlock = factors.isOfTiles ? 512 : 256
    let all = keys.shape[0] * heads
    packedKeys = TensorStorage(count: all * ((keyCount + 31) / 32) * 32 * keyFactors.words(width))
    packedValues = TensorStorage(count: all * ((width + 31) / 32) * 32 * factors.words(keyCount))
    // With few products, making the sums takes longer than crossing saves.
    let isCrossed = factors == .floats && queries.shape[1] * keyCount * width >= 1 << 22 && Kernels.active.gemm_panel_crossed != nil
    let valueRuns = (width + 31) / 32 * ((keyCount + keyBlock - 1) / keyBlock)
    crossedKeys = isCrossed ? CrossedHeads(all, panels: (keyCount + 31) / 32) : nil
    crossedValues = isCrossed && width >= Self.panel ? CrossedHeads(all, panels: valueRuns) : nil
    try context.parallel(all) { pair in
      packKeys(keys, pair: pair)
      packValues(values, pair: pair)
    }
  }

  private func packKeys(_ keys: Tensor, pair: Int) {
    let source = keys.pointer + pair / heads * keyCount * stride + pair % heads * width
    let scratch = keyFactors == .floats ? nil : TensorStorage(count: Self.panel * width)
    crossedKeys?.measure(source, rows: keyCount, columns: width, stride: stride, head: pair)
    for index in 0..<keyPanels {
      let packed = packedKeys.pointer + (pair * keyPanels + index) * Self.panel * keyFactors.words(width)
      let target = scratch?.pointer ?? packed
      let valid = min(Self.panel, keyCount - index * Self.panel)
      if valid < Self.panel { target.update(repeating: 0, count: Self.panel * width) }
      for key in 0..<valid {
        let row = source + (index * Self.panel + key) * stride
        for feature in 0..<width { target[feature * Self.panel + key] = row[feature] }
      }
      if scratch != nil { keyFactors.takePanel(k: width, target, into: packed) }
      crossedKeys?.take(packed, k: width, panel: index, head: pair)
    }
  }

  private func packValues(_ values: Tensor, pair: Int) {
    let source = values.pointer + pair / heads * keyCount * stride + pair % heads * width
    let scratch = factors == .floats ? nil : TensorStorage(count: keyBlock * Self.panel)
    crossedValues?.measure(source, rows: keyCount, columns: width, stride: stride, head: pair)
    let factor = valueFactor(pair)
    for index in 0..<valuePanels {
      let packed = packedValues.pointer + (pair * valuePanels + index) * Self.panel * factors.words(keyCount)
      let valid = min(Self.panel, width - index * Self.panel)
      for begin in Swift.stride(from: 0, to: keyCount, by: keyBlock) {
        let count = min(keyBlock, keyCount - begin)
        let target = scratch?.pointer ?? packed + begin * Self.panel
        for key in 0..<count {
          let row = target + key * Self.panel
          let value = source + (begin + key) * stride + index * Self.panel
          for column in 0..<valid { row[column] = value[column] * factor }
          if valid < Self.panel { (row + valid).update(repeating: 0, count: Self.panel - valid) }
        }
        if scratch != nil { factors.takePanel(k: count, target, into: packed + factors.words(begin) * Self.panel) }
        crossedValues?.take(target, k: count, panel: valueRun(index, begin), head: pair)
      }
    }
  }

  /// The power of two that scales values for crossed products: to the magnitude of probabilities, about a tenth of the largest one.
  private func valueFactor(_ pair: Int) -> Float {
    guard let level = crossedValues?.level(pair), level.isNormal else { return 1 }
    return Float(sign: .plus, exponent: min(100, max(-100, -3 - Int(level.exponent))), significand: 1)
  }

  /// The index of the sums for a panel of values and the block of keys that begins at `key`.
  private func valueRun(_ panel: Int, _ key: Int) -> Int {
    panel * ((keyCount + keyBlock - 1) / keyBlock) + key / keyBlock
  }

  func run(in context: ExecutionContext) throws {
    let length = queries.shape[1]
    let blocks = (length + queryBlock - 1) / queryBlock
    let pairs = queries.shape[0] * heads
    guard length > 0 else { return }
    try context.parallel(pairs * blocks) { task in
      let begin = task % blocks * queryBlock
      attend(pair: task / blocks, queries: begin..<min(length, begin + queryBlock))
    }
  }

  private func attend(pair: Int, queries range: Range<Int>) {
    let offset = (pair / heads * queries.shape[1] + range.lowerBound) * stride + pair % heads * width
    let scores = TensorStorage(count: range.count * scoreStride)
    let sums = TensorStorage(count: range.count * paddedWidth)
    let length = keyFactors.words(width), words = TensorStorage(count: keyFactors == .floats ? 0 : range.count * length)
    keyFactors.takeRows(range.count, k: width, queries.pointer + offset, stride: stride, into: words.pointer, stride: length)
    let (query, queryStride) = keyFactors == .floats ? (queries.pointer + offset, stride) : (UnsafePointer(words.pointer), length)
    let crossed = crossedKeys.map { $0.rows(range.count, of: queries.pointer + offset, stride: stride, k: width, head: pair) }
    var state = SoftmaxState(rows: range.count)
    // Without keys the result is zero.
    if keyCount == 0 { sums.pointer.update(repeating: 0, count: sums.count) }
    for begin in Swift.stride(from: 0, to: causal ? min(keyCount, range.upperBound) : keyCount, by: keyBlock) {
      let keys = begin..<min(keyCount, begin + keyBlock)
      score(query, stride: queryStride, crossed, rows: range, keys: keys, pair: pair, into: scores.pointer)
      if causal { mask(scores.pointer, rows: range, keys: keys) }
      state.take(scores.pointer, columns: keys.count, stride: scoreStride, scale: scale)
      if begin > 0 { state.rescale(sums.pointer, columns: paddedWidth, stride: paddedWidth) }
      factors.takeRows(range.count, k: keys.count, scores.pointer, stride: scoreStride, into: scores.pointer, stride: scoreStride)
      gather(scores.pointer, rows: range.count, keys: keys, pair: pair, into: sums.pointer)
    }
    state.normalize(sums.pointer, columns: paddedWidth, stride: paddedWidth, dividingBy: valueFactor(pair))
    if let remembered {
      let place = pair * queries.shape[1] + range.lowerBound
      state.write(maxima: remembered.maxima.mutablePointer + place, inverses: remembered.inverses.mutablePointer + place)
    }
    for row in 0..<range.count {
      (result.mutablePointer + offset + row * stride).update(from: sums.pointer + row * paddedWidth, count: width)
    }
  }

  /// scores = Q · Kᵀ, for whole panels. Keys beyond the end are zeros.
  private func score(
    _ query: UnsafePointer<Float>, stride queryStride: Int, _ crossed: CrossedRows?, rows: Range<Int>, keys: Range<Int>, pair: Int,
    into scores: UnsafeMutablePointer<Float>
  ) {
    for first in Swift.stride(from: keys.lowerBound, to: keys.upperBound, by: Self.panel) {
      let panel = packedKeys.pointer + (pair * keyPanels + first / Self.panel) * Self.panel * keyFactors.words(width)
      let target = scores + first - keys.lowerBound
      if let crossedKeys, let crossed {
        crossed.multiply(
          rows.count, k: width, crossedKeys.panel(panel, index: first / Self.panel, head: pair), into: target, stride: scoreStride,
          begin: Int32(CK_BEGIN_FRESH))
      } else {
        keyFactors.multiply(
          rows.count, columns: Self.panel, words: keyFactors.words(width), query, stride: queryStride, panel, into: target,
          stride: scoreStride, begin: Int32(CK_BEGIN_FRESH))
      }
    }
  }

  private func mask(_ scores: UnsafeMutablePointer<Float>, rows: Range<Int>, keys: Range<Int>) {
    for (index, row) in rows.enumerated() where row + 1 < keys.upperBound {
      let first = max(row + 1, keys.lowerBound) - keys.lowerBound
      (scores + index * scoreStride + first).update(repeating: -.infinity, count: keys.count - first)
    }
  }

  /// sums += scores · V.
  private func gather(
    _ scores: UnsafeMutablePointer<Float>, rows: Int, keys: Range<Int>, pair: Int,
    into sums: UnsafeMutablePointer<Float>
  ) {
    let begin = Int32(keys.lowerBound == 0 ? CK_BEGIN_FRESH : CK_BEGIN_ACCUMULATE)
    let crossed = crossedValues == nil ? nil : CrossedRows(of: scores, stride: scoreStride, rows: rows, k: keys.count)
    for index in 0..<valuePanels {
      let columns = min(Self.panel, paddedWidth - index * Self.panel)
      let panel =
        packedValues.pointer + ((pair * valuePanels + index) * factors.words(keyCount) + factors.words(keys.lowerBound)) * Self.panel
      let target = sums + index * Self.panel
      if let crossedValues, let crossed, columns == Self.panel {
        crossed.multiply(
          rows, k: keys.count, crossedValues.panel(panel, index: valueRun(index, keys.lowerBound), head: pair), into: target,
          stride: paddedWidth, begin: begin)
      } else {
        factors.multiply(
          rows, columns: columns, words: factors.words(keys.count), scores, stride: scoreStride, panel, into: target,
          stride: paddedWidth, begin: begin)
      }
    }
  }

  /// The mean magnitude of each head's keys or values, and the sums of their panels, for crossed products.
  private struct CrossedHeads {
    private let panels: Int
    private let sums: TensorStorage
    private let levels: TensorStorage

    init(_ heads: Int, panels: Int) {
      self.panels = panels
      sums = TensorStorage(count: heads * panels * TiledAttention.panel)
      levels = TensorStorage(count: heads)
    }

    /// Measures the mean magnitude of up to 32 rows.
    func measure(_ source: UnsafePointer<Float>, rows: Int, columns: Int, stride: Int, head: Int) {
      var sum: Float = 0, count = 0
      for row in Swift.stride(from: 0, to: rows, by: max(1, (rows + 31) / 32)) {
        for column in 0..<columns { sum += abs(source[row * stride + column]) }
        count += columns
      }
      levels.pointer[head] = sum / Float(max(count, 1))
    }

    func take(_ values: UnsafePointer<Float>, k: Int, panel index: Int, head: Int) {
      Kernels.active.cross_panel(k, values, sums.pointer + (head * panels + index) * TiledAttention.panel)
    }

    func panel(_ values: UnsafePointer<Float>, index: Int, head: Int) -> CrossedPanel {
      CrossedPanel(values: values, sums: sums.pointer + (head * panels + index) * TiledAttention.panel)
    }

    func rows(_ rows: Int, of x: UnsafePointer<Float>, stride: Int, k: Int, head: Int) -> CrossedRows {
      let crossed = CrossedRows(stride: k, rows: rows, level: levels.pointer[head])
      crossed.take(0..<rows, from: x, stride: stride, k: k)
      return crossed
    }

    func level(_ head: Int) -> Float { levels.pointer[head] }
  }
}
