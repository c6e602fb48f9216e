import CLatentDiffusionKernels

extension Tensor {
  /// Attention along the second axis, at every place by itself: the frames of a clip attend to one another pixel by pixel.
  ///
  /// These are many short sequences, whose tokens lie a picture apart. So nothing is moved, and a task computes some places with all heads.
  ///
  /// - Parameters:
  ///   - queries: `[N, L, P, heads · d]`, of P places.
  ///   - keys: `[N, S, P, heads · d]`.
  ///   - values: `[N, S, P, heads · d]`.
  ///   - scale: usually d^-½.
  /// - Returns: `[N, L, P, heads · d]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public static func attention(
    acrossFrames queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor {
    precondition(
      queries.shape.rank == 4 && keys.shape == values.shape && keys.shape.rank == 4 && keys.shape[0] == queries.shape[0]
        && keys.shape[2] == queries.shape[2] && keys.shape.columns == queries.shape.columns && heads > 0
        && queries.shape.columns % heads == 0,
      "\(heads) heads of \(queries.shape), \(keys.shape), \(values.shape).")
    return try context.engine.frameAttention(queries: queries, keys: keys, values: values, heads: heads, scale: scale, in: context)
  }

  /// `[N, L, P, C]` as a sequence for each place: `[N · P, L, C]`.
  fileprivate var asSequences: Tensor { permuted([0, 2, 1, 3]).reshaped([shape[0] * shape[2], shape[1], shape[3]]) }

  /// A sequence for each of `places`, `[N · P, L, C]`, as `[N, L, P, C]`.
  fileprivate func asFrames(of places: Int) -> Tensor {
    reshaped([shape[0] / max(places, 1), places, shape[1], shape[2]]).permuted([0, 2, 1, 3])
  }
}

extension CPUEngine {
  public func frameAttention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor {
    let attention = FrameAttention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale,
      result: keys.shape[1] == 0 ? Tensor(shape: queries.shape) : Tensor(uninitialized: queries.shape))
    if keys.shape[1] > 0 { try attention.run(in: context) }
    return attention.result
  }
}

extension GradientEngine {
  /// The gradients of attention along the second axis: those of a sequence for each place.
  func frameAttentionGradient(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, gradient: Tensor, in context: ExecutionContext
  ) throws -> (queries: Tensor, keys: Tensor, values: Tensor) {
    let (queries, keys, values, places) = (queries.asSequences, keys.asSequences, values.asSequences, queries.shape[2])
    let forward = try rememberedAttention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: false, precision: .float32, in: context)
    let own = try attentionGradient(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: false, forward: forward,
      gradient: gradient.asSequences, in: context)
    return (own.queries.asFrames(of: places), own.keys.asFrames(of: places), own.values.asFrames(of: places))
  }
}

/// Attention of short sequences cut into tasks of some places each.
struct FrameAttention {
  let queries: Tensor
  let keys: Tensor
  let values: Tensor
  let heads: Int
  let scale: Float
  let result: Tensor

  private static let panel = PackedMatrix.panelWidth
  /// Elements of queries and keys in a task, which then takes some tenths of a millisecond.
  private static let taskElements = 1 << 17

  private var length: Int { queries.shape[1] }
  private var keyCount: Int { keys.shape[1] }
  private var places: Int { queries.shape[2] }
  private var channels: Int { queries.shape[3] }
  private var width: Int { channels / heads }
  /// From a token to the next one.
  private var stride: Int { places * channels }
  private var keyPanels: Int { (keyCount + Self.panel - 1) / Self.panel }
  private var valuePanels: Int { (width + Self.panel - 1) / Self.panel }
  private var scoreStride: Int { keyPanels * Self.panel }

  /// The temporary buffers of a task, in floats each.
  static func buffers(length: Int, keys: Int, width: Int) -> [Int] {
    let keyPanels = (keys + panel - 1) / panel, valuePanels = (width + panel - 1) / panel
    return [length * width, keyPanels * panel * width, valuePanels * panel * keys, length * keyPanels * panel, 3 * length]
  }

  /// One head of one place, as the kernels take it.
  private struct Buffers {
    /// `[L][d]`: tokens a picture apart compete for the same cache sets, so they are gathered.
    let queries: TensorStorage
    /// `[S / 32][d][32]`.
    let keys: TensorStorage
    /// `[d / 32][S][32]`.
    let values: TensorStorage
    /// `[L][S]`.
    let scores: TensorStorage
    /// Maxima, sums and factors of the rows.
    let rows: TensorStorage

    init(_ counts: [Int]) {
      let all = counts.map { TensorStorage(count: $0) }
      (queries, keys, values, scores, rows) = (all[0], all[1], all[2], all[3], all[4])
      // What lies beside the tokens in a panel stays zero.
      for storage in all[1...2] { storage.pointer.update(repeating: 0, count: storage.count) }
    }
  }

  func run(in context: ExecutionContext) throws {
    guard result.count > 0 else { return }
    let all = queries.shape[0] * places, run = max(1, Self.taskElements / ((length + keyCount) * channels))
    try context.parallel((all + run - 1) / run) { task in
      let buffers = Buffers(Self.buffers(length: length, keys: keyCount, width: width))
      for place in task * run..<min(all, (task + 1) * run) where !context.isCancelled {
        for head in 0..<heads { attend(sample: place / places, place: place % places, head: head, buffers) }
      }
    }
  }

  private func attend(sample: Int, place: Int, head: Int, _ buffers: Buffers) {
    let inside = place * channels + head * width, start = sample * length * stride + inside
    for token in 0..<length {
      (buffers.queries.pointer + token * width).update(from: queries.pointer + start + token * stride, count: width)
    }
    pack(from: sample * keyCount * stride + inside, buffers)
    for panel in 0..<keyPanels {
      Kernels.active.gemm_panel(
        length, min(Self.panel, keyCount - panel * Self.panel), width, buffers.queries.pointer, width,
        buffers.keys.pointer + panel * Self.panel * width, buffers.scores.pointer + panel * Self.panel, scoreStride,
        Int32(CK_BEGIN_FRESH), nil, nil, 0)
    }
    let (maxima, sums, factors) = (buffers.rows.pointer, buffers.rows.pointer + length, buffers.rows.pointer + 2 * length)
    maxima.update(repeating: -.infinity, count: length)
    sums.update(repeating: 0, count: length)
    Kernels.active.softmax_block(length, keyCount, scale, buffers.scores.pointer, scoreStride, maxima, sums, factors)
    let target = result.mutablePointer + start
    for panel in 0..<valuePanels {
      Kernels.active.gemm_panel(
        length, min(Self.panel, width - panel * Self.panel), keyCount, buffers.scores.pointer, scoreStride,
        buffers.values.pointer + panel * keyCount * Self.panel, target + panel * Self.panel, stride, Int32(CK_BEGIN_FRESH), nil, nil, 0)
    }
    for row in 0..<length { factors[row] = 1 / sums[row] }
    Kernels.active.scale_rows(length, width, factors, target, stride)
  }

  private func pack(from start: Int, _ buffers: Buffers) {
    for key in 0..<keyCount {
      let row = keys.pointer + start + key * stride, value = values.pointer + start + key * stride
      let turned = buffers.keys.pointer + key / Self.panel * Self.panel * width + key % Self.panel
      for feature in 0..<width { turned[feature * Self.panel] = row[feature] }
      for panel in 0..<valuePanels {
        (buffers.values.pointer + (panel * keyCount + key) * Self.panel)
          .update(from: value + panel * Self.panel, count: min(Self.panel, width - panel * Self.panel))
      }
    }
  }
}
