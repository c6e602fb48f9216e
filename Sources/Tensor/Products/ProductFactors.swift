import CLatentDiffusionKernels

/// The form of a product's factors: rows of activations and panels of 32 columns, both in words of 32 bits.
enum ProductFactors {
  /// float32 values, which may be crossed.
  case floats
  /// Values rounded to bfloat16, two in a word.
  case pairs
  /// Values as sums of two bfloat16. A product takes three products of these, which some processors make in a third of the time of a float product.
  case split
  /// The same three products as a single one of three times the depth, in pairs: a row's upper, upper and lower parts, and a panel's lower, upper
  /// and upper ones, one after the other. With depths that are no multiple of 32 this leaves less of the processor's tiles empty.
  case tripled

  /// The words that this number of values of a row takes, and so the rows of words in a panel.
  func words(_ values: Int) -> Int {
    switch self {
    case .floats: values
    case .pairs: ((values + 1) / 2 + Kernels.active.pair_words - 1) / Kernels.active.pair_words * Kernels.active.pair_words
    case .split: (values + Self.splitValues - 1) / Self.splitValues * Self.splitValues
    case .tripled: ProductFactors.pairs.words(3 * values)
    }
  }

  /// The rows that the kernel computes at once. Multiples of this are fastest.
  var tileRows: Int { isOfTiles ? 32 : Kernels.active.tile_rows }

  /// Whether the processor multiplies whole tiles of such words (AMX). That is so fast that the work around the products takes most of the time.
  var isOfTiles: Bool { self != .floats && Kernels.active.gemm_windows != nil }

  /// The form for products with weights whose inner dimension consists of runs of `channels` values. 8-bit weights are less exact than bfloat16, so
  /// with them both factors become bfloat16 if the processor multiplies pairs of these.
  static func ofWeights(_ weights: PackedMatrix, channels: Int) -> ProductFactors {
    weights.form.factors.takes(channels: channels) ? weights.form.factors : .floats
  }

  /// Whether this processor has such products, and runs of `channels` values have whole words.
  func takes(channels: Int) -> Bool { isAvailable && channels % granularity == 0 }

  /// The form for products of activations with activations.
  static func ofActivations(_ precision: ProductPrecision) -> ProductFactors {
    let wanted: ProductFactors = precision == .bfloat16 && pairs.isAvailable ? .pairs : .split
    return wanted.isAvailable ? wanted : .floats
  }

  /// The form for products of this depth: tripled instead of split if that takes no more words, because each word is then multiplied once instead
  /// of one and a half times. (If it takes more words, reading them costs what it saves.)
  func ofDepth(_ depth: Int) -> ProductFactors { self == .split && Self.tripled.words(depth) <= words(depth) ? .tripled : self }

  /// Whether this processor has such products.
  var isAvailable: Bool {
    switch self {
    case .floats: true
    case .pairs: Kernels.active.gemm_panel_pairs != nil
    case .split, .tripled: Kernels.active.gemm_panel_split != nil
    }
  }

  /// The number of values whose words are stored together.
  private static let splitValues = Int(CK_SPLIT)
  /// Runs of the inner dimension must be multiples of this to have whole words.
  var granularity: Int {
    switch self {
    case .floats: 1
    case .pairs, .tripled: 2 * Kernels.active.pair_words
    case .split: Self.splitValues
    }
  }

  /// Converts rows of k floats to words. These may replace the floats at the same stride, unless they are tripled.
  func takeRows(_ rows: Int, k: Int, _ x: UnsafePointer<Float>, stride ldx: Int, into y: UnsafeMutablePointer<Float>, stride ldy: Int) {
    switch self {
    case .floats:
      break
    case .pairs:
      Kernels.active.narrow_rows(rows, k, x, ldx, y.words, ldy)
      let taken = (k + 1) / 2
      guard taken < words(k) else { return }
      for row in 0..<rows { (y + row * ldy + taken).update(repeating: 0, count: words(k) - taken) }
    case .split:
      Kernels.active.split_rows(rows, k, x, ldx, y.words, ldy)
    case .tripled:
      let parts = TensorStorage(count: rows * 3 * k)
      for row in 0..<rows {
        let upper = parts.pointer + row * 3 * k
        Kernels.active.part(k, x + row * ldx, upper, upper + 2 * k)
        (upper + k).update(from: upper, count: k)
      }
      ProductFactors.pairs.takeRows(rows, k: 3 * k, parts.pointer, stride: 3 * k, into: y, stride: ldy)
    }
  }

  /// Converts a panel of k rows of floats to words.
  func takePanel(k: Int, _ x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>) {
    switch self {
    case .floats:
      break
    case .pairs:
      Kernels.active.narrow_panel(k, x, PackedMatrix.panelWidth, y.words)
      let taken = (k + 1) / 2
      (y + taken * PackedMatrix.panelWidth).update(repeating: 0, count: (words(k) - taken) * PackedMatrix.panelWidth)
    case .split:
      Kernels.active.split_panel(k, x, y.words)
    case .tripled:
      let count = k * PackedMatrix.panelWidth
      let parts = TensorStorage(count: 3 * count)
      Kernels.active.part(count, x, parts.pointer + count, parts.pointer)
      (parts.pointer + 2 * count).update(from: parts.pointer + count, count: count)
      ProductFactors.pairs.takePanel(k: 3 * k, parts.pointer, into: y)
    }
  }

  /// Rows k of a panel of weights as words: in place if they are stored as such, else converted.
  func panel(
    _ weights: PackedMatrix, _ index: Int, rows k: Range<Int>, widenedInto scratch: UnsafeMutablePointer<Float>,
    into y: UnsafeMutablePointer<Float>
  ) -> UnsafePointer<Float> {
    if let words = weights.form.words(weights.rows(k, ofPanel: index), as: self, into: y) { return words }
    takePanel(k: k.count, weights.panel(index, rows: k, scratch: scratch), into: y)
    return UnsafePointer(y)
  }

  /// c = begin + rows · panel. `columns` is a multiple of 8, except for floats.
  func multiply(
    _ rows: Int, columns: Int, words: Int, _ a: UnsafePointer<Float>, stride lda: Int, _ panel: UnsafePointer<Float>,
    into c: UnsafeMutablePointer<Float>, stride ldc: Int, begin: Int32, bias: UnsafePointer<Float>? = nil,
    residual: UnsafePointer<Float>? = nil, residualStride ldr: Int = 0
  ) {
    switch self {
    case .floats:
      Kernels.active.gemm_panel(rows, columns, words, a, lda, panel, c, ldc, begin, bias, residual, ldr)
    case .pairs, .tripled:
      Kernels.active.gemm_panel_pairs?(rows, columns, words, a.words, lda, panel.words, c, ldc, begin, bias, residual, ldr)
    case .split:
      Kernels.active.gemm_panel_split?(rows, columns, words, a.words, lda, panel.words, c, ldc, begin, bias, residual, ldr)
    }
  }
}
