import CLatentDiffusionKernels

/// A convolution by 3×3 windows with products of bfloat16 words. Each band of the pictures, with the pixels around it, is converted to words
/// once, and the windows are read from there.
///
/// The words of a band and of a panel, for some channels at a time, stay in the second-level cache. The kernel sums all nine taps of a window in
/// its tiles. Winograd's transforms would take longer than the products they save, because words are multiplied so much faster than floats.
struct BandedConvolution {
  private let map: UnitStrideConvolution
  private let factors: ProductFactors

  /// The approximate number of pixels in a band, and the largest width of a band.
  private static let bandPixels = 512, bandWidth = 64
  /// Channels that are converted to words at once.
  private static let runLength = 320
  /// The fewest panels in a task, so that converting its band pays off, and the floats for each thread in lines that are prepared at once.
  private static let leastPanels = 4, threadFloats = 1 << 21
  private static let panel = PackedMatrix.panelWidth

  /// Whether a map with such factors is convolved in this way. With split factors, Winograd's method is faster for large maps, in spite of its
  /// transforms of tiles and weights.
  static func takes(_ factors: ProductFactors, height: Int, width: Int) -> Bool {
    guard Kernels.active.gemm_windows != nil else { return false }
    return factors == .pairs || factors == .split && height * width < 64 * 64
  }

  /// The temporary buffers of a convolution that live at once, in floats each; approximate.
  static func buffers(n: Int, height: Int, width: Int, channels: Int, threads: Int, isNormalized: Bool) -> [Int] {
    let run = min(channels, runLength), band = (bandPixels / bandWidth + 2) * (bandWidth + 2) * (run + 16)
    let lines = isNormalized ? min(n * height * width * channels, threads * threadFloats) : 0
    return [lines] + Array(repeating: [band, run * panel, 9 * run * panel], count: threads).flatMap { $0 }
  }

  /// Nil if the map is not convolved in this way.
  init?(_ map: UnitStrideConvolution) {
    let factors = ProductFactors.ofWeights(map.weights, channels: map.channels)
    guard map.weights.outputs % Self.panel == 0, map.inputs.allSatisfy({ $0.shape.columns % factors.granularity == 0 }),
      Self.takes(factors, height: map.height, width: map.width)
    else { return nil }
    (self.map, self.factors) = (map, factors)
  }

  /// Lines and columns of the result: a part of one picture, or all of several small ones.
  private struct Band {
    let images: Range<Int>
    let lines: Range<Int>
    let columns: Range<Int>
  }

  func run(in context: ExecutionContext) throws {
    guard map.result.count > 0 else { return }
    let groups = groups(threads: context.threads)
    var source = ConvolvedLines(of: map, most: groups.reduce(0) { max($0, lines(read: $1).count) })
    for group in groups {
      try source.take(lines(read: group))
      let panels = map.weights.panels, splits = splits(bands: group.count, threads: context.threads)
      try context.parallel(group.count * splits) { [source] task in
        let (band, split) = (group[task / splits], task % splits)
        convolve(band, panels: panels * split / splits..<panels * (split + 1) / splits, from: source, in: context)
      }
    }
  }

  /// All bands in the order of the pictures' lines, in groups whose lines are prepared at once.
  private func groups(threads: Int) -> [[Band]] {
    let across = (map.width + Self.bandWidth - 1) / Self.bandWidth, columns = (map.width + across - 1) / across
    let down = max(1, (map.height * columns + Self.bandPixels / 2) / Self.bandPixels), lines = (map.height + down - 1) / down
    let images = across == 1 && down == 1 ? max(1, Self.bandPixels / (map.height * map.width)) : 1
    var groups: [[Band]] = [[]], first = 0
    let most = map.readsAsItIs ? Int.max : Self.threadFloats * threads / max(1, map.inputs[0].shape[2] * map.channels)
    for image in stride(from: 0, to: map.result.shape[0], by: images) {
      for line in stride(from: 0, to: map.height, by: lines) {
        let row = (0..<across).map { part in
          Band(
            images: image..<min(map.result.shape[0], image + images), lines: line..<min(map.height, line + lines),
            columns: part * columns..<min(map.width, (part + 1) * columns))
        }.filter { !$0.columns.isEmpty }
        let read = self.lines(read: row)
        if !groups[groups.count - 1].isEmpty, read.upperBound - first > most { groups.append([]) }
        if groups[groups.count - 1].isEmpty { first = read.lowerBound }
        groups[groups.count - 1] += row
      }
    }
    return groups
  }

  /// The input lines that neighbouring bands read.
  private func lines(read bands: [Band]) -> Range<Int> {
    guard let first = bands.first, let last = bands.last else { return 0..<0 }
    return map.lines(
      readFrom: (first.images.lowerBound, first.lines.lowerBound), to: (last.images.upperBound - 1, last.lines.upperBound - 1))
  }

  /// The number of runs of panels that the work on a band is cut into, so that there are some tasks for each thread.
  private func splits(bands: Int, threads: Int) -> Int {
    let wanted = (4 * threads + bands - 1) / bands
    return max(1, min(wanted, map.weights.panels / Self.leastPanels))
  }

  /// Computes some panels of a band's results.
  private func convolve(_ band: Band, panels: Range<Int>, from source: ConvolvedLines, in context: ExecutionContext) {
    let most = min(map.channels, Self.runLength), words = BandWords(band, words: factors.words(most))
    let scratch =
      map.weights.form.inPlace == factors
      ? nil : (floats: TensorStorage(count: most * Self.panel), words: TensorStorage(count: 9 * factors.words(most) * Self.panel))
    for begin in stride(from: 0, to: map.channels, by: Self.runLength) where !context.isCancelled {
      let run = begin..<min(map.channels, begin + Self.runLength)
      for image in band.images { takeWords(of: band, image: image, channels: run, from: source, into: words) }
      for panel in panels {
        let place: (weights: UnsafePointer<Float>, step: Int)
        if let scratch {
          place = (UnsafePointer(scratch.words.pointer), factors.words(run.count) * Self.panel)
          for tap in 0..<9 {
            let rows = tap * map.channels + run.lowerBound..<tap * map.channels + run.upperBound
            _ = factors.panel(
              map.weights, panel, rows: rows, widenedInto: scratch.floats.pointer, into: scratch.words.pointer + tap * place.step)
          }
        } else {
          place = (map.weights.rows(run, ofPanel: panel).values(Float.self), map.channels * Self.panel)
        }
        multiply(words, words: factors.words(run.count), panel: panel, place.weights, step: place.step, isFirst: begin == 0)
        if run.upperBound == map.channels, map.activation != .none { activate(band, panel: panel) }
      }
    }
  }

  /// Applies the activation to a panel's results, which are in the cache.
  private func activate(_ band: Band, panel: Int) {
    for image in band.images {
      for line in band.lines {
        let start = map.result.mutablePointer + place(of: band, image: image, line: line, panel: panel), outputs = map.weights.outputs
        Kernels.active.activate(map.activation.code, band.columns.count, Self.panel, start, outputs, start, outputs)
      }
    }
  }

  /// Where a panel's results for a line of a band begin.
  private func place(of band: Band, image: Int, line: Int, panel: Int) -> Int {
    ((image * map.height + line) * map.width + band.columns.lowerBound) * map.weights.outputs + panel * Self.panel
  }

  /// A band's pixels and the pixels around it, as words.
  private struct BandWords {
    let band: Band
    private let storage: TensorStorage
    /// The strides between pixels, which is no power of two, and between lines, in words.
    let pixel: Int, line: Int

    init(_ band: Band, words: Int) {
      self.band = band
      pixel = words + 16
      line = (band.columns.count + 2) * pixel
      storage = TensorStorage(count: band.images.count * (band.lines.count + 2) * line)
    }

    /// The first word of a picture.
    func image(_ image: Int) -> UnsafeMutablePointer<Float> {
      storage.pointer + (image - band.images.lowerBound) * (band.lines.count + 2) * line
    }
  }

  /// Adds the products of some channels with a panel to the panel's results. If `isFirst`, the results begin at bias and residual.
  private func multiply(
    _ source: BandWords, words: Int, panel: Int, _ weights: UnsafePointer<Float>, step: Int, isFirst: Bool
  ) {
    let band = source.band, outputs = map.weights.outputs
    let offsets = (0..<9).map { $0 / 3 * source.line + $0 % 3 * source.pixel }
    offsets.withUnsafeBufferPointer { offsets in
      guard let first = offsets.baseAddress else { return }
      var windows = ck_windows(
        lines: band.lines.count, width: band.columns.count, taps: offsets.count, offsets: first, words: words, panel: step,
        pixel: source.pixel, line: source.line, result_pixel: outputs, result_line: map.width * outputs)
      for image in band.images {
        let start = place(of: band, image: image, line: band.lines.lowerBound, panel: panel)
        Kernels.active.gemm_windows?(
          factors == .split ? 1 : 0, &windows, source.image(image).words, weights.words, map.result.mutablePointer + start,
          Int32(isFirst ? CK_BEGIN_FRESH : CK_BEGIN_ACCUMULATE),
          map.bias.map { $0.pointer + ($0.shape.rows > 1 ? image * outputs : 0) + panel * Self.panel },
          map.residual.map { $0.pointer + start })
      }
    }
  }

  /// Converts some channels of a band of one picture, and of the pixels around it, to words.
  private func takeWords(of band: Band, image: Int, channels run: Range<Int>, from source: ConvolvedLines, into target: BandWords) {
    let pixel = target.pixel, inputWidth = map.inputs[0].shape[2]
    // The columns inside of the picture. They are converted at once if they are neighbours in the input, too.
    let inside = max(0, band.columns.lowerBound - 1)..<min(map.columnMap.count, band.columns.upperBound + 1)
    let before = inside.lowerBound - (band.columns.lowerBound - 1), behind = band.columns.count + 2 - before - inside.count
    let step = map.columnMap.count == inputWidth ? inside.count : 1
    for line in 0..<band.lines.count + 2 {
      let y = band.lines.lowerBound + line - 1, start = target.image(image) + line * target.line
      guard y >= 0, y < map.rowMap.count else {
        start.update(repeating: 0, count: target.line)
        continue
      }
      let first = source.pixel(image: image, line: y)
      start.update(repeating: 0, count: before * pixel)
      (start + (before + inside.count) * pixel).update(repeating: 0, count: behind * pixel)
      for x in stride(from: inside.lowerBound, to: inside.upperBound, by: step) {
        takeWords(
          ofPixels: step, at: first + map.columnMap[x], channels: run, from: source, into: start + (before + x - inside.lowerBound) * pixel,
          stride: pixel)
      }
    }
  }

  /// Converts some channels of neighbouring pixels to words. They come from all inputs that have these channels.
  private func takeWords(
    ofPixels count: Int, at first: Int, channels run: Range<Int>, from source: ConvolvedLines, into target: UnsafeMutablePointer<Float>,
    stride: Int
  ) {
    var begin = 0
    for input in source.inputs {
      let own = input.shape.columns, part = run.clamped(to: begin..<begin + own)
      if !part.isEmpty {
        factors.takeRows(
          count, k: part.count, input.pointer + first * own + part.lowerBound - begin, stride: own,
          into: target + factors.words(part.lowerBound - run.lowerBound), stride: stride)
      }
      begin += own
    }
  }
}
