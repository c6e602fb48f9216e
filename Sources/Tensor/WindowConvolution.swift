import CKernels

/// One convolution by 3×3 windows whose products are of words: bands of the pictures, with the pixels around them, are made words once, and the
/// windows are read from there.
///
/// A band's words stay in the second-level cache, and so do a panel's, for some channels at a time; the kernel adds up all nine places of a window in
/// its tiles. Where words are multiplied so much faster than floats, Winograd's transforms would take longer than the products that they save.
struct WindowConvolution {
  let inputs: [Tensor]
  let weights: PackedMatrix
  let bias: Tensor?
  let residual: Tensor?
  let result: Tensor
  /// Whether the input's memory goes back to the system as it is read.
  let forgetsInput: Bool
  /// Makes what is convolved from the inputs, where that is not the inputs themselves: some lines at a time, just before they are read.
  let prepare: ((PassingLines) throws -> Void)?
  private let factors: ProductFactors
  private let rowMap: [Int]
  private let columnMap: [Int]

  /// Pixels of a band, about, and at most in a line of it.
  private static let bandPixels = 512, bandWidth = 64
  /// Channels whose words are made at once.
  private static let runLength = 320
  /// Panels of a task at least, which repay that it makes the band's words, and floats of the lines that are prepared at once for each thread.
  private static let leastPanels = 4, threadFloats = 1 << 21
  private static let panel = PackedMatrix.panelWidth

  /// Whether this is the way to make products of words for a map: larger ones repay Winograd's transforms, and those of the weights.
  static func takes(height: Int, width: Int) -> Bool { Kernels.active.gemm_windows != nil && height * width < 64 * 64 }

  /// Floats of all buffers that a convolution takes beside its result, about.
  static func bufferFloats(n: Int, height: Int, width: Int, channels: Int, threads: Int, isNormalized: Bool) -> Int {
    let run = min(channels, runLength), band = (bandPixels / bandWidth + 2) * (bandWidth + 2) * (run + 16)
    let lines = isNormalized ? min(n * height * width * channels, threads * threadFloats) : 0
    return threads * (band + 10 * run * panel) + lines
  }

  /// What the products are made of; floats where they cannot be of words.
  static func factors(_ weights: PackedMatrix, inputs: [Tensor]) -> ProductFactors {
    guard weights.outputs % panel == 0 else { return .floats }
    let factors = ProductFactors.ofWeights(weights, channels: weights.inputs / 9)
    return inputs.allSatisfy { $0.shape.columns % factors.granularity == 0 } ? factors : .floats
  }

  init(
    inputs: [Tensor], weights: PackedMatrix, bias: Tensor?, residual: Tensor?, result: Tensor, forgetsInput: Bool, factors: ProductFactors,
    preparing prepare: ((PassingLines) throws -> Void)? = nil
  ) {
    (self.inputs, self.weights, self.bias, self.residual, self.result) = (inputs, weights, bias, residual, result)
    (self.forgetsInput, self.factors, self.prepare) = (forgetsInput, factors, prepare)
    rowMap = nearestIndices(from: inputs[0].shape[1], to: result.shape[1])
    columnMap = nearestIndices(from: inputs[0].shape[2], to: result.shape[2])
  }

  private var channels: Int { weights.inputs / 9 }
  private var height: Int { result.shape[1] }
  private var width: Int { result.shape[2] }

  /// Lines and columns of some pictures' results: of one picture, or all of several small ones.
  private struct Band {
    let images: Range<Int>
    let lines: Range<Int>
    let columns: Range<Int>
  }

  func run(in context: ExecutionContext) throws {
    guard result.count > 0 else { return }
    let groups = groups(threads: context.threads)
    let window =
      prepare == nil ? nil : Tensor(uninitialized: [groups.map { lines(read: $0).count }.max() ?? 0, inputs[0].shape[2], channels])
    let source = Source(inputs: window.map { [$0] } ?? inputs, lines: window?.shape[0] ?? inputs[0].shape[0] * inputs[0].shape[1])
    var prepared = 0
    for group in groups {
      let read = lines(read: group)
      if forgetsInput { inputs[0].storage.forget(first: read.lowerBound * inputs[0].shape[2] * inputs[0].shape[3]) }
      if let prepare, let window, read.upperBound > prepared {
        try prepare(PassingLines(lines: prepared..<read.upperBound, window: window))
        prepared = read.upperBound
      }
      let splits = splits(bands: group.count, threads: context.threads)
      try context.parallel(group.count * splits) { task in
        let (band, split) = (group[task / splits], task % splits)
        convolve(band, panels: weights.panels * split / splits..<weights.panels * (split + 1) / splits, from: source, in: context)
      }
    }
  }

  /// Bands in the order of the pictures' lines, in groups whose lines are prepared at once.
  private func groups(threads: Int) -> [[Band]] {
    let across = (width + Self.bandWidth - 1) / Self.bandWidth, columns = (width + across - 1) / across
    let down = max(1, (height * columns + Self.bandPixels / 2) / Self.bandPixels), lines = (height + down - 1) / down
    let images = across == 1 && down == 1 ? max(1, Self.bandPixels / (height * width)) : 1
    var groups: [[Band]] = [[]], first = 0
    let most = prepare == nil && !forgetsInput ? Int.max : Self.threadFloats * threads / max(1, inputs[0].shape[2] * channels)
    for image in stride(from: 0, to: result.shape[0], by: images) {
      for line in stride(from: 0, to: height, by: lines) {
        let row = (0..<across).map { part in
          Band(
            images: image..<min(result.shape[0], image + images), lines: line..<min(height, line + lines),
            columns: part * columns..<min(width, (part + 1) * columns))
        }.filter { !$0.columns.isEmpty }
        let read = self.lines(read: row)
        if !groups[groups.count - 1].isEmpty, read.upperBound - first > most { groups.append([]) }
        if groups[groups.count - 1].isEmpty { first = read.lowerBound }
        groups[groups.count - 1] += row
      }
    }
    return groups
  }

  /// The lines of the inputs, counted through all pictures, that neighbouring bands read.
  private func lines(read bands: [Band]) -> Range<Int> {
    guard let first = bands.first, let last = bands.last else { return 0..<0 }
    let begin = first.images.lowerBound * inputs[0].shape[1] + rowMap[max(0, first.lines.lowerBound - 1)]
    let end = (last.images.upperBound - 1) * inputs[0].shape[1] + rowMap[min(height, last.lines.upperBound + 1) - 1]
    return begin..<end + 1
  }

  /// Into how many runs of panels the bands of a group are cut: so that there are some tasks for each thread.
  private func splits(bands: Int, threads: Int) -> Int {
    let wanted = (4 * threads + bands - 1) / bands
    return max(1, min(wanted, weights.panels / Self.leastPanels))
  }

  /// What is convolved: line i of all pictures stands at i % lines.
  private struct Source {
    let inputs: [Tensor]
    let lines: Int
  }

  private func convolve(_ band: Band, panels: Range<Int>, from source: Source, in context: ExecutionContext) {
    let (height, width) = (band.lines.count + 2, band.columns.count + 2)
    let most = factors.words(min(channels, Self.runLength)), pixel = most + 16
    let words = TensorStorage(count: band.images.count * height * width * pixel)
    let scratch = TensorStorage(count: weights.isSplit ? 0 : min(channels, Self.runLength) * Self.panel)
    let panelWords = TensorStorage(count: weights.isSplit ? 0 : 9 * most * Self.panel)
    let outputs = weights.outputs, offsets = (0..<9).map { ($0 / 3 * width + $0 % 3) * pixel }
    for begin in stride(from: 0, to: channels, by: Self.runLength) where !context.isCancelled {
      let run = begin..<min(channels, begin + Self.runLength), length = factors.words(run.count)
      for (index, image) in band.images.enumerated() {
        takeWords(of: band, image: image, channels: run, from: source, into: words.pointer + index * height * width * pixel, pixel: pixel)
      }
      for panel in panels {
        var (weights, step) = (UnsafePointer(panelWords.pointer), length * Self.panel)
        for tap in 0..<9 {
          let rows = tap * channels + run.lowerBound..<tap * channels + run.upperBound
          let made = factors.panel(self.weights, panel, rows: rows, widenedInto: scratch.pointer, into: panelWords.pointer + tap * step)
          // Words that the weights are already are used where they are.
          if tap == 0, self.weights.isSplit { (weights, step) = (made, channels * Self.panel) }
        }
        offsets.withUnsafeBufferPointer { offsets in
          guard let first = offsets.baseAddress else { return }
          var windows = ck_windows(
            lines: band.lines.count, width: band.columns.count, taps: 9, offsets: first, words: length, panel: step, pixel: pixel,
            line: width * pixel, columns: Self.panel, result_pixel: outputs, result_line: self.width * outputs)
          for (index, image) in band.images.enumerated() {
            let place = (image * self.height + band.lines.lowerBound) * self.width + band.columns.lowerBound
            let offset = place * outputs + panel * Self.panel
            Kernels.active.gemm_windows?(
              factors == .split ? 1 : 0, &windows, (words.pointer + index * height * width * pixel).words, weights.words,
              result.mutablePointer + offset, Int32(begin == 0 ? CK_BEGIN_FRESH : CK_BEGIN_ACCUMULATE),
              bias.map { $0.pointer + ($0.shape.rows > 1 ? image * outputs : 0) + panel * Self.panel },
              residual.map { $0.pointer + offset })
          }
        }
      }
    }
  }

  /// Some channels of a band of one picture, and of the pixels around it, as words.
  private func takeWords(
    of band: Band, image: Int, channels run: Range<Int>, from source: Source, into target: UnsafeMutablePointer<Float>, pixel: Int
  ) {
    let width = band.columns.count + 2, inputWidth = inputs[0].shape[2]
    // The columns that there are; neighbours are made at once where they are neighbours in the input.
    let inside = max(0, band.columns.lowerBound - 1)..<min(columnMap.count, band.columns.upperBound + 1)
    let step = columnMap.count == inputWidth ? inside.count : 1
    for line in 0..<band.lines.count + 2 {
      let y = band.lines.lowerBound + line - 1
      let start = target + line * width * pixel, before = inside.lowerBound - (band.columns.lowerBound - 1)
      guard y >= 0, y < rowMap.count else {
        start.update(repeating: 0, count: width * pixel)
        continue
      }
      let first = (image * inputs[0].shape[1] + rowMap[y]) % source.lines * inputWidth
      start.update(repeating: 0, count: before * pixel)
      (start + (before + inside.count) * pixel).update(repeating: 0, count: (width - before - inside.count) * pixel)
      for x in stride(from: inside.lowerBound, to: inside.upperBound, by: step) {
        let place = start + (before + x - inside.lowerBound) * pixel
        // The channels of the inputs, side by side.
        var begin = 0
        for input in source.inputs {
          let own = input.shape.columns, part = run.clamped(to: begin..<begin + own)
          if !part.isEmpty {
            factors.takeRows(
              step, k: part.count, input.pointer + (first + columnMap[x]) * own + part.lowerBound - begin, stride: own,
              into: place + factors.words(part.lowerBound - run.lowerBound), stride: pixel)
          }
          begin += own
        }
      }
    }
  }
}
