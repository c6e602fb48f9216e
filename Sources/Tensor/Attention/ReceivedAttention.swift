import CLatentDiffusionKernels

extension Tensor {
  /// How much attention each token gets: softmax(Q · Kᵀ · scale) summed over the queries, in the mean over the heads. In the mean it is L / S.
  ///
  /// - Parameters:
  ///   - queries: `[N, L, heads · d]`.
  ///   - keys: `[N, S, heads · d]`.
  ///   - scale: usually d^-½.
  /// - Returns: `[N, S]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public static func attentionReceived(
    queries: Tensor, keys: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor {
    precondition(
      queries.shape.rank == 3 && keys.shape.rank == 3 && keys.shape[0] == queries.shape[0] && keys.shape[2] == queries.shape[2]
        && heads > 0 && queries.shape[2] % heads == 0, "\(heads) heads of \(queries.shape), \(keys.shape).")
    return try context.engine.attentionReceived(queries: queries, keys: keys, heads: heads, scale: scale, in: context)
  }
}

extension CPUEngine {
  public func attentionReceived(
    queries: Tensor, keys: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor {
    let received = Tensor(repeating: 0, shape: [keys.shape[0], heads, keys.shape[1]])
    let attention = ReceivedAttention(queries: queries, keys: keys, heads: heads, scale: scale, received: received)
    try context.parallel(keys.shape[0] * heads) { attention.run(pair: $0, in: context) }
    return received.mean(axis: 1, in: context)
  }
}

/// The probabilities of attention, with a task for each head of a sample. A task goes over the queries block by block and keeps their sum alone.
struct ReceivedAttention {
  let queries: Tensor
  let keys: Tensor
  let heads: Int
  let scale: Float
  /// `[N, heads, S]`, of zeros.
  let received: Tensor
  private static let panel = PackedMatrix.panelWidth
  /// Queries in a block: a multiple of the kernels' tiles.
  private static let queryBlock = 84

  private var keyCount: Int { keys.shape[1] }
  private var stride: Int { keys.shape[2] }
  private var width: Int { stride / heads }

  /// Between rows of scores, in floats: no power of two, so that rows do not compete for the same cache sets.
  private static func scoreStride(keys: Int) -> Int { (keys + panel - 1) / panel * panel + 16 }

  /// The temporary buffers of a task, in floats each: the keys, turned, and the scores of a block.
  static func buffers(keys: Int, width: Int) -> [Int] {
    [(keys + panel - 1) / panel * panel * width, queryBlock * scoreStride(keys: keys)]
  }

  func run(pair: Int, in context: ExecutionContext) {
    let buffers = Self.buffers(keys: keyCount, width: width).map { TensorStorage(count: $0) }
    // An array may be freed after its last use, while its buffers' pointers are in use.
    defer { withExtendedLifetime(buffers) {} }
    let (turned, scores, scoreStride) = (buffers[0].pointer, buffers[1].pointer, Self.scoreStride(keys: keyCount))
    let sample = pair / heads, head = pair % heads * width, length = queries.shape[1], sums = received.mutablePointer + pair * keyCount
    PackedMatrix.turn(keys.pointer + sample * keyCount * stride + head, rows: keyCount, width: width, stride: stride, into: turned)
    for begin in Swift.stride(from: 0, to: length, by: Self.queryBlock) where !context.isCancelled {
      let rows = min(Self.queryBlock, length - begin), query = queries.pointer + (sample * length + begin) * stride + head
      for first in Swift.stride(from: 0, to: keyCount, by: Self.panel) {
        Kernels.active.gemm_panel(
          rows, min(Self.panel, keyCount - first), width, query, stride, turned + first * width, scores + first, scoreStride,
          Int32(CK_BEGIN_FRESH), nil, nil, 0)
      }
      var state = SoftmaxState(rows: rows)
      state.take(scores, columns: keyCount, stride: scoreStride, scale: scale)
      state.normalize(scores, columns: keyCount, stride: scoreStride)
      for row in 0..<rows {
        let probabilities = scores + row * scoreStride
        for key in 0..<keyCount { sums[key] += probabilities[key] }
      }
    }
  }
}

extension PackedMatrix {
  /// Rows in panels of 32 with a line for each of their elements: `[rows / 32][width][32]`.
  /// - Parameter stride: from a row to the next one, in floats.
  static func turn(_ source: UnsafePointer<Float>, rows: Int, width: Int, stride: Int, into target: UnsafeMutablePointer<Float>) {
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: panelWidth) { lines in
      guard let all = lines.baseAddress else { return }
      for first in Swift.stride(from: 0, to: rows, by: panelWidth) {
        for line in 0..<panelWidth { lines[line] = first + line < rows ? UnsafeRawPointer(source + (first + line) * stride) : nil }
        ck_pack_panel(4, width, 1, all, target + first * width)
      }
    }
  }
}
