import CLatentDiffusionKernels

extension CPUEngine {
  public func rememberedAttention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    in context: ExecutionContext
  ) throws -> RememberedAttention {
    let shape = Shape([queries.shape[0], heads, queries.shape[1]])
    let softmax = RememberedSoftmax(maxima: Tensor(uninitialized: shape), inverses: Tensor(uninitialized: shape))
    let result = try attention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, precision: precision,
      remembering: softmax, in: context)
    return RememberedAttention(result: result, softmax: softmax)
  }

  /// With P = softmax(Q · Kᵀ · scale): dV = Pᵀ · dO, dP = dO · Vᵀ, dS = P ∘ (dP − Σ dO ∘ O) · scale, dQ = dS · K and dK = dSᵀ · Q. Probabilities are made
  /// anew from their rows' maxima and sums, block by block. Source: Dao et al. 2022 (FlashAttention), PyTorch's `scaled_dot_product_attention`.
  public func attentionGradient(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, forward: RememberedAttention, gradient: Tensor,
    in context: ExecutionContext
  ) throws -> (queries: Tensor, keys: Tensor, values: Tensor) {
    let width = queries.shape[2] / heads, padded = (width + 7) / 8 * 8
    guard width == padded else {
      func padding(_ x: Tensor) -> Tensor { x.heads(heads, ofWidth: padded) }
      let own = try attentionGradient(
        queries: padding(queries), keys: padding(keys), values: padding(values), heads: heads, scale: scale, causal: causal,
        forward: RememberedAttention(result: padding(forward.result), softmax: forward.softmax), gradient: padding(gradient),
        in: context)
      return (own.queries.heads(heads, ofWidth: width), own.keys.heads(heads, ofWidth: width), own.values.heads(heads, ofWidth: width))
    }
    let own = AttentionGradient(
      queries: queries, keys: keys, values: values, forward: forward, gradient: gradient, heads: heads, scale: scale, causal: causal)
    try context.parallel(queries.shape[0] * heads) { own.run(pair: $0, in: context) }
    return (own.queryGradient, own.keyGradient, own.valueGradient)
  }
}

/// What the gradient of attention needs of the way there.
public struct RememberedAttention: Sendable {
  /// `[N, L, heads · d]`.
  public let result: Tensor
  /// Of the scores.
  public let softmax: RememberedSoftmax

  /// - Parameters:
  ///   - result: `[N, L, heads · d]`.
  ///   - softmax: of the scores.
  public init(result: Tensor, softmax: RememberedSoftmax) { (self.result, self.softmax) = (result, softmax) }
}

/// What makes probabilities of scores again: exp(scale · (score − maximum)) · inverse.
public struct RememberedSoftmax: Sendable {
  /// `[N, heads, L]`: the largest score of each row.
  public let maxima: Tensor
  /// `[N, heads, L]`: one divided by the sum of each row's exponentials.
  public let inverses: Tensor

  /// - Parameters:
  ///   - maxima: `[N, heads, L]`, the largest score of each row.
  ///   - inverses: `[N, heads, L]`, one divided by the sum of each row's exponentials.
  public init(maxima: Tensor, inverses: Tensor) { (self.maxima, self.inverses) = (maxima, inverses) }
}

/// The gradient of attention, with a task for each head of a sample. A task goes over the queries block by block, and for each over the keys.
struct AttentionGradient {
  private let queries: Tensor
  private let keys: Tensor
  private let values: Tensor
  private let forward: RememberedAttention
  private let gradient: Tensor
  private let heads: Int
  private let scale: Float
  private let causal: Bool
  let queryGradient: Tensor
  let keyGradient: Tensor
  let valueGradient: Tensor
  private static let panel = PackedMatrix.panelWidth
  /// Queries and keys in a block: multiples of the kernels' tiles, so few that two blocks of scores stay in the second-level cache.
  private static let queryBlock = 168, keyBlock = 192
  /// Between rows of scores, in floats: no power of two, so that rows do not compete for the same cache sets.
  private static let scoreStride = keyBlock + 16

  /// - Precondition: a head's width is a multiple of 8.
  init(
    queries: Tensor, keys: Tensor, values: Tensor, forward: RememberedAttention, gradient: Tensor, heads: Int, scale: Float, causal: Bool
  ) {
    (self.queries, self.keys, self.values, self.forward, self.gradient) = (queries, keys, values, forward, gradient)
    (self.heads, self.scale, self.causal) = (heads, scale, causal)
    queryGradient = Tensor(uninitialized: queries.shape)
    keyGradient = Tensor(repeating: 0, shape: keys.shape)
    valueGradient = Tensor(repeating: 0, shape: values.shape)
    // Without keys no block of them writes anything.
    if keyCount == 0 { queryGradient.mutablePointer.update(repeating: 0, count: queryGradient.count) }
  }

  private var length: Int { queries.shape[1] }
  private var keyCount: Int { keys.shape[1] }
  private var stride: Int { queries.shape[2] }
  private var width: Int { stride / heads }

  /// The temporary buffers of a task, in floats each, in the order of `Buffers`.
  static func buffers(keys: Int, width: Int) -> [Int] {
    let turned = (keys + panel - 1) / panel * panel * width
    return [turned, turned, queryBlock * scoreStride, queryBlock * scoreStride, queryBlock]
  }

  /// What a task writes and reads again.
  private struct Buffers {
    /// Keys and values turned, for scores and for the gradients of probabilities: `[S / 32][d][32]`.
    let turnedKeys: TensorStorage, turnedValues: TensorStorage
    /// Probabilities and the gradients of scores, `[block][scoreStride]`.
    let probabilities: TensorStorage, slopes: TensorStorage
    /// Σ dO ∘ O of each query of the block.
    let products: TensorStorage

    init(_ counts: [Int]) {
      let all = counts.map { TensorStorage(count: $0) }
      (turnedKeys, turnedValues, probabilities, slopes, products) = (all[0], all[1], all[2], all[3], all[4])
    }
  }

  func run(pair: Int, in context: ExecutionContext) {
    let place = pair / heads * keyCount * stride + pair % heads * width
    let buffers = Buffers(Self.buffers(keys: keyCount, width: width))
    for (source, turned) in [(keys, buffers.turnedKeys), (values, buffers.turnedValues)] {
      PackedMatrix.turn(source.pointer + place, rows: keyCount, width: width, stride: stride, into: turned.pointer)
    }
    for begin in Swift.stride(from: 0, to: length, by: Self.queryBlock) where !context.isCancelled {
      let block = begin..<min(length, begin + Self.queryBlock)
      sumProducts(block, pair: pair, buffers)
      for first in Swift.stride(from: 0, to: causal ? min(keyCount, block.upperBound) : keyCount, by: Self.keyBlock) {
        run(block, keys: first..<min(keyCount, first + Self.keyBlock), pair: pair, buffers)
      }
    }
  }

  /// The place of a head's token.
  private func place(pair: Int, of count: Int, token: Int) -> Int { (pair / heads * count + token) * stride + pair % heads * width }

  private func sumProducts(_ block: Range<Int>, pair: Int, _ buffers: Buffers) {
    for (row, query) in block.enumerated() {
      let place = place(pair: pair, of: length, token: query)
      var sum: Float = 0
      for feature in place..<place + width { sum += forward.result.pointer[feature] * gradient.pointer[feature] }
      buffers.products.pointer[row] = sum
    }
  }

  private func run(_ block: Range<Int>, keys range: Range<Int>, pair: Int, _ buffers: Buffers) {
    let (rows, columns, ld) = (block.count, range.count, Self.scoreStride)
    let query = place(pair: pair, of: length, token: block.lowerBound), key = place(pair: pair, of: keyCount, token: range.lowerBound)
    let probabilities = buffers.probabilities.pointer, slopes = buffers.slopes.pointer
    multiply(rows, queries.pointer + query, buffers.turnedKeys, keys: range, into: probabilities)
    if causal { mask(probabilities, queries: block, keys: range) }
    multiply(rows, gradient.pointer + query, buffers.turnedValues, keys: range, into: slopes)
    let kernels = Kernels.active
    let (maxima, inverses) = (forward.softmax.maxima.pointer + pair * length, forward.softmax.inverses.pointer + pair * length)
    kernels.attention_back(
      rows, columns, scale, maxima + block.lowerBound, inverses + block.lowerBound, buffers.products.pointer, probabilities, slopes, ld)
    let sums = Int32(CK_BEGIN_ACCUMULATE)
    kernels.gemm_outer(
      columns, width, rows, probabilities, ld, gradient.pointer + query, stride, valueGradient.mutablePointer + key, stride, sums)
    kernels.gemm_outer(
      columns, width, rows, slopes, ld, queries.pointer + query, stride, keyGradient.mutablePointer + key, stride, sums)
    kernels.gemm_rows(
      rows, width, columns, slopes, ld, keys.pointer + key, stride, queryGradient.mutablePointer + query, stride,
      range.lowerBound == 0 ? Int32(CK_BEGIN_FRESH) : sums)
  }

  /// The products of some rows with some keys or values.
  private func multiply(
    _ rows: Int, _ a: UnsafePointer<Float>, _ turned: TensorStorage, keys range: Range<Int>, into scores: UnsafeMutablePointer<Float>
  ) {
    for first in Swift.stride(from: range.lowerBound, to: range.upperBound, by: Self.panel) {
      Kernels.active.gemm_panel(
        rows, min(Self.panel, range.upperBound - first), width, a, stride, turned.pointer + first * width,
        scores + first - range.lowerBound,
        Self.scoreStride, Int32(CK_BEGIN_FRESH), nil, nil, 0)
    }
  }

  /// No query sees a later key.
  private func mask(_ scores: UnsafeMutablePointer<Float>, queries block: Range<Int>, keys range: Range<Int>) {
    for (row, query) in block.enumerated() where query + 1 < range.upperBound {
      let first = max(query + 1, range.lowerBound) - range.lowerBound
      (scores + row * Self.scoreStride + first).update(repeating: -.infinity, count: range.count - first)
    }
  }
}

extension Tensor {
  /// Heads of another width: what is new of each is zeros, what is beyond is left out. `[N, L, heads · d]` → `[N, L, heads · width]`.
  fileprivate func heads(_ heads: Int, ofWidth width: Int) -> Tensor {
    let own = shape.columns / heads, result = Tensor(repeating: 0, shape: Shape(shape.dimensions.dropLast() + [heads * width]))
    for head in 0..<shape.rows * heads {
      (result.mutablePointer + head * width).update(from: pointer + head * own, count: min(own, width))
    }
    return result
  }
}
