import CLatentDiffusionKernels

/// How the factors of a product lie: rows of activations and panels of 32 columns, both in words of 32 bits.
enum ProductFactors {
  /// Values as they are, or crossed.
  case floats
  /// Rounded to bfloat16, two in a word.
  case pairs
  /// In two bfloat16 each: three products of those, which some processors make in a third of the time of one of floats.
  case split
  /// The same three products as one of three times the depth: upper, upper and lower parts of a row, and lower, upper and upper ones of a panel, one
  /// after the other as pairs. Depths that are no multiple of 32 leave less of the processor's tiles empty so.
  case tripled

  /// Words that take so many values of a row: as many rows take them in a panel.
  func words(_ values: Int) -> Int {
    switch self {
    case .floats: values
    case .pairs: ((values + 1) / 2 + Kernels.active.pair_words - 1) / Kernels.active.pair_words * Kernels.active.pair_words
    case .split: (values + Self.splitValues - 1) / Self.splitValues * Self.splitValues
    case .tripled: ProductFactors.pairs.words(3 * values)
    }
  }

  /// Rows that the kernel takes at once: multiples of it are done best.
  var tileRows: Int { isOfTiles ? 32 : Kernels.active.tile_rows }

  /// Whether the processor multiplies whole tiles of such words: so fast that what is done around the products decides how long they take.
  var isOfTiles: Bool { self != .floats && Kernels.active.gemm_windows != nil }

  /// What products with some weights are made of, whose inner dimension has `channels` values in a row.
  static func ofWeights(_ weights: PackedMatrix, channels: Int) -> ProductFactors {
    weights.form.factors.takes(channels: channels) ? weights.form.factors : .floats
  }

  /// Whether this processor has products of these, and rows with so many values between places where they may be cut have whole words.
  func takes(channels: Int) -> Bool { isAvailable && channels % granularity == 0 }

  /// What products of activations with one another are made of.
  static func ofActivations(_ precision: ProductPrecision) -> ProductFactors {
    let wanted: ProductFactors = precision == .bfloat16 && pairs.isAvailable ? .pairs : .split
    return wanted.isAvailable ? wanted : .floats
  }

  /// What factors are made of whose products have this depth: tripled instead of split where that takes no more words, which are multiplied once then
  /// instead of one and a half times. (Where it takes more, reading them costs what it spares.)
  func ofDepth(_ depth: Int) -> ProductFactors { self == .split && Self.tripled.words(depth) <= words(depth) ? .tripled : self }

  /// Whether this processor has products of these.
  var isAvailable: Bool {
    switch self {
    case .floats: true
    case .pairs: Kernels.active.gemm_panel_pairs != nil
    case .split, .tripled: Kernels.active.gemm_panel_split != nil
    }
  }

  /// Values whose words lie together.
  private static let splitValues = Int(CK_SPLIT)
  /// What an inner dimension must be a multiple of, so that runs of it have whole words.
  var granularity: Int {
    switch self {
    case .floats: 1
    case .pairs, .tripled: 2 * Kernels.active.pair_words
    case .split: Self.splitValues
    }
  }

  /// Rows of k floats as words, which may take their place, with the same stride; not if they are tripled.
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

  /// A panel of k rows of floats as words.
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

  /// Rows k of a panel of weights as words: where they are, if they are that already, or made by way of floats.
  func panel(
    _ weights: PackedMatrix, _ index: Int, rows k: Range<Int>, widenedInto scratch: UnsafeMutablePointer<Float>,
    into y: UnsafeMutablePointer<Float>
  ) -> UnsafePointer<Float> {
    if let words = weights.form.words(weights.rows(k, ofPanel: index), as: self, into: y) { return words }
    takePanel(k: k.count, weights.panel(index, rows: k, scratch: scratch), into: y)
    return UnsafePointer(y)
  }

  /// c = begin + rows · panel. Other than of floats, columns are a multiple of 8.
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
