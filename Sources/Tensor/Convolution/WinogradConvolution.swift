import CLatentDiffusionKernels

/// A convolution by Winograd's method, in groups of tiles whose transforms fit the last-level cache. For each group, the tiles are transformed
/// first. Then each task makes one panel of outputs for a block of tiles, by 36 products.
///
/// Source: Lavin and Gray 2015, F(4×4, 3×3): 16 pixels take 36 products per pair of channels instead of 144. The weights are transformed at
/// each call (for small maps by the task that uses them), because keeping them would take 36 floats for 9 weights.
struct WinogradConvolution {
  private let map: UnitStrideConvolution
  /// The form of the products' factors.
  private let factors: ProductFactors
  /// For each of the 36 products the mean magnitude of its weights; empty if products are not crossed.
  private let levels: [Float]
  /// The number of channels whose weights are transformed at once, and all runs of that many channels.
  private let runLength: Int
  private let runs: [Range<Int>]
  private let tileRows: Int
  private let tileColumns: Int
  /// Stands for pixels beyond the picture's edge, and for a bias if there is none.
  private let zeros: Tensor

  /// The temporary buffers of a convolution that live at once, in floats each.
  static func buffers(
    n: Int, height: Int, width: Int, channels: Int, outputs: Int, threads: Int, isNormalized: Bool
  ) -> [Int] {
    let columns = (width + 3) / 4, tiles = n * ((height + 3) / 4) * columns
    let panels = (outputs + panel - 1) / panel, run = min(channels, longRun)
    // Crossed products add a row of sums after the weights of each product, and scales and sums of the tiles.
    let matrix = matrixStride((run + 1) * panel)
    let ofTiles = ProductFactors.split.isAvailable
    let keepsWeights = ofTiles || tiles > 2 * blockTiles
    let own = ownWork(channels + 16, panels: panels, ofTiles: ofTiles)
    let group = min(tiles, keepsWeights ? threads * own.tiles : max(blockTiles, groupFloats(threads) / (36 * (channels + 16))))
    func transformed(_ tiles: Int) -> Int {
      36 * matrixStride(tiles * (channels + 16)) + 72 * tiles * ((channels + shortRun - 1) / shortRun)
    }
    let shared = keepsWeights ? panels * ((channels + longRun - 1) / longRun) * 36 * matrix : transformed(group)
    let single = keepsWeights ? transformed((group + threads - 1) / threads) : 36 * matrix
    let sums = keepsWeights ? min(panels, own.panels) * sumFloats(own.tiles) : sumFloats(min(tiles, blockTiles))
    let lines = isNormalized ? min(n * height, 4 * (group / columns + 2) + 2) * width * channels : 0
    // Windows are gathered before tiles are multiplied if the weights are kept.
    let task = [single, sums] + (keepsWeights ? [] : [9 * run * panel])
    return [lines, shared] + Array(repeating: task, count: threads).flatMap { $0 }
  }

  /// Floats in the transformed tiles of a group: for each thread a megabyte, or half of its part of the last-level cache if that is less, so that all
  /// panels read them from there.
  private static func groupFloats(_ threads: Int) -> Int { threads * min(1 << 18, CacheSizes.machine.lastLevel(for: threads) / 8) }
  /// The most tiles in a task: a multiple of every kernel's tile height (14, 12 and 6).
  private static let blockTiles = 168
  /// With fast tile products (AMX): the tiles of pictures that a thread transforms for itself, so few that one product's rows stay in the
  /// second-level cache, and the floats of all sums that are made from them at once, 4 MB.
  private static let wordTiles = 96, wordSums = 1 << 20
  /// The tiles of a thread where all weights fit in the second-level cache: a multiple of 14 and 6.
  private static let fewTiles = 42
  /// Channels whose weights are transformed at once if a picture has many tiles, for which reading weights from the last-level cache pays off: 640
  /// channels of a panel take 3 MB.
  private static let longRun = 640
  /// The same if a picture has few tiles, for which the weights must be in a closer cache: 64 channels of a panel take 300 KB.
  private static let shortRun = 64
  /// The factor by which each of a window's 36 values is larger than its taps, if the taps are uncorrelated.
  private static let windowNorms: [Float] = {
    // Tap t is 1 in column t.
    var taps = [Float](repeating: 0, count: 9 * panel), windows = [Float](repeating: 0, count: 36 * panel)
    for tap in 0..<9 { taps[tap * panel + tap] = 1 }
    Kernels.active.winograd_weights(taps, panel, &windows, panel)
    return (0..<36).map { windows[$0 * panel..<($0 + 1) * panel].reduce(0) { $0 + $1 * $1 }.squareRoot() }
  }()
  /// Outputs in a panel.
  private static let panel = PackedMatrix.panelWidth

  init(_ map: UnitStrideConvolution) {
    self.map = map
    factors = .ofWeights(map.weights, channels: map.channels)
    tileRows = (map.height + 3) / 4
    tileColumns = (map.width + 3) / 4
    let tiles = tileRows * tileColumns, length = tiles < 56 ? Self.shortRun : Self.longRun
    runLength = length
    runs = stride(from: 0, to: map.channels, by: length).map { [all = map.channels] in $0..<min(all, $0 + length) }
    // With fewer tiles, making the weights' sums takes longer than crossing saves.
    let crosses = factors == .floats && tiles >= 16 && map.weights.isCrossed(products: tiles * 36 * map.channels * map.weights.outputs)
    levels = crosses ? Self.windowNorms.map { [level = map.weights.level] in level * $0 } : []
    zeros = Tensor(repeating: 0, shape: [max(map.channels, map.weights.outputs)])
  }

  /// The stride between tiles, in words: a little more than the channels, so that tiles do not compete for the same cache sets.
  private var inputStride: Int { factors.words(channels) + 16 }
  /// The stride between the 36 matrices of `count` words: an odd number of cache lines, so that a tile's 36 values do not compete for the
  /// same cache sets.
  fileprivate static func matrixStride(_ count: Int) -> Int { (count + 15) / 16 * 16 | 16 }
  private var weights: PackedMatrix { map.weights }
  private var channels: Int { map.channels }
  private var isCrossed: Bool { !levels.isEmpty }
  /// The stride between the 36 matrices of some channels' weights, in words. With crossed products it includes the sums after the weights.
  private func weightStride(_ channels: Int) -> Int { Self.matrixStride((factors.words(channels) + (isCrossed ? 1 : 0)) * Self.panel) }

  func run(in context: ExecutionContext) throws {
    let tiles = map.result.shape[0] * tileRows * tileColumns
    guard tiles > 0 else { return }
    if keepsWeights(tiles: tiles) {
      try runApart(tiles, by: transformedWeights(in: context), in: context)
    } else {
      try runTogether(tiles, in: context)
    }
  }

  /// The threads transform tiles together, group by group. Then each task makes a panel of outputs for a block of tiles.
  private func runTogether(_ tiles: Int, in context: ExecutionContext) throws {
    let groups = evenRuns(of: 0..<tiles, atMost: max(Self.blockTiles, Self.groupFloats(context.threads) / (36 * inputStride)))
    var source = ConvolvedLines(of: map, most: groups.reduce(0) { max($0, self.lines(read: $1).count) })
    var transformed = Transformed(tiles: groups[0].count, self)
    for group in groups {
      try source.take(lines(read: group))
      transformed.first = group.lowerBound
      try forRuns(of: group, in: context) { [source, transformed] in transformIn($0, from: source, into: transformed) }
      let blocks = evenRuns(of: group, atMost: Self.blockTiles)
      try context.parallel(weights.panels * blocks.count) { [transformed] in
        multiply(transformed, tiles: blocks[$0 % blocks.count], panels: $0 / blocks.count..<$0 / blocks.count + 1, by: nil, in: context)
      }
    }
  }

  /// Every thread transforms the tiles that it multiplies, and makes all their panels. So no thread reads tiles from another core's cache, which
  /// may be far away.
  private func runApart(_ tiles: Int, by kept: TensorStorage, in context: ExecutionContext) throws {
    let blocks = ownBlocks(of: tiles, threads: context.threads)
    // Lines that are made, or whose memory is returned, on the way are so for a block of each thread at a time.
    let most = map.readsAsItIs ? blocks.count : context.threads
    let groups = stride(from: 0, to: blocks.count, by: most).map { blocks[$0..<min(blocks.count, $0 + most)] }
    func covered(by group: ArraySlice<Range<Int>>) -> Range<Int> {
      blocks[group.startIndex].lowerBound..<blocks[group.endIndex - 1].upperBound
    }
    var source = ConvolvedLines(of: map, most: groups.reduce(0) { max($0, lines(read: covered(by: $1)).count) })
    for group in groups {
      try source.take(lines(read: covered(by: group)))
      try context.parallel(group.count) { [source] in
        multiplyOwn(blocks[group.startIndex + $0], from: source, by: kept, in: context)
      }
    }
  }

  /// Whether all weights are transformed at once, and every thread makes all panels of its own tiles.
  private func keepsWeights(tiles: Int) -> Bool { factors.isOfTiles || tiles > 2 * Self.blockTiles }

  /// The approximate number of tiles that a thread transforms for itself, and the panels for which it then makes each product in turn.
  ///
  /// Weights that are few stay in the second-level cache beside few tiles. With others it is up to two megabytes of tiles, but enough that reading the
  /// weights pays off.
  /// - Parameter stride: between tiles, in words.
  private static func ownWork(_ stride: Int, panels: Int, ofTiles: Bool) -> (tiles: Int, panels: Int) {
    if ofTiles { return (wordTiles, max(1, wordSums / sumFloats(wordTiles))) }
    if 36 * stride * panels * panel <= CacheSizes.machine.secondLevel / 4 { return (fewTiles, panels) }
    return (min(blockTiles, max(blockTiles / 2, 2 * groupFloats(1) / (36 * stride))), 1)
  }

  /// Blocks with the same number of tiles, and as many for each thread.
  private func ownBlocks(of tiles: Int, threads: Int) -> [Range<Int>] {
    let own = threads * Self.ownWork(inputStride, panels: weights.panels, ofTiles: factors.isOfTiles).tiles
    let count = max(1, (tiles + own / 2) / own) * threads
    let length = (tiles + count - 1) / count
    return stride(from: 0, to: tiles, by: length).map { $0..<min(tiles, $0 + length) }
  }

  /// Makes all panels of some tiles.
  private func multiplyOwn(_ tiles: Range<Int>, from source: ConvolvedLines, by kept: TensorStorage, in context: ExecutionContext) {
    let own = Transformed(tiles: tiles.count, first: tiles.lowerBound, self)
    transformIn(tiles, from: source, into: own)
    let some = Self.ownWork(inputStride, panels: weights.panels, ofTiles: factors.isOfTiles).panels
    for panel in stride(from: 0, to: weights.panels, by: some) where !context.isCancelled {
      multiply(own, tiles: tiles, panels: panel..<min(weights.panels, panel + some), by: kept, in: context)
    }
  }

  /// Transformed tiles, `[36][tiles][channels]`, and for crossed products their scales and sums, `[runs][scales, sums][36][tiles]`.
  private struct Transformed {
    let count: Int
    /// The index of the first tile.
    var first: Int
    /// The stride between the 36 matrices, in words.
    let matrix: Int
    private let storage: TensorStorage

    init(tiles count: Int, first: Int = 0, _ convolution: WinogradConvolution) {
      (self.count, self.first) = (count, first)
      matrix = WinogradConvolution.matrixStride(count * convolution.inputStride)
      storage = TensorStorage(count: 36 * matrix + (convolution.isCrossed ? 2 * 36 * convolution.runs.count * count : 0))
    }

    var values: UnsafeMutablePointer<Float> { storage.pointer }
    /// The scales of one product of a run of channels. Its sums follow at a distance of `sums` floats.
    func scales(run: Int, product: Int) -> UnsafeMutablePointer<Float> { storage.pointer + 36 * matrix + (2 * 36 * run + product) * count }
    /// The distance from scales to their sums, in floats.
    var sums: Int { 36 * count }
  }

  /// The input lines that some tiles read.
  private func lines(read tiles: Range<Int>) -> Range<Int> {
    let (first, last) = (place(tiles.lowerBound), place(tiles.upperBound - 1))
    return map.lines(readFrom: (first.image, first.y), to: (last.image, last.y + 3))
  }

  /// The transformed weights of all panels, for when several blocks need each of them: `[panel][run][36][channels][32]`.
  private func transformedWeights(in context: ExecutionContext) throws -> TensorStorage {
    let result = TensorStorage(count: weights.panels * panelFloats)
    try context.parallel(weights.panels) { panel in
      for run in runs { transformWindows(panel: panel, channels: run, into: place(of: run, panel: panel, in: result)) }
    }
    return result
  }

  private var panelFloats: Int { runs.count * 36 * weightStride(min(channels, runLength)) }

  private func place(of run: Range<Int>, panel: Int, in kept: TensorStorage) -> UnsafeMutablePointer<Float> {
    kept.pointer + panel * panelFloats + run.lowerBound / runLength * 36 * weightStride(runLength)
  }

  /// Runs of nearly equal length. If there are several, they consist of whole register tiles.
  private func evenRuns(of range: Range<Int>, atMost most: Int) -> [Range<Int>] {
    let tile = isCrossed ? Kernels.active.crossed_rows : factors.tileRows
    let count = (range.count + most - 1) / most
    let even = (range.count + count - 1) / count
    let length = count == 1 ? even : (even + tile - 1) / tile * tile
    return stride(from: range.lowerBound, to: range.upperBound, by: length).map { $0..<min(range.upperBound, $0 + length) }
  }

  private func forRuns(of group: Range<Int>, in context: ExecutionContext, _ body: (Range<Int>) -> Void) throws {
    let run = max(1, min(8, group.count / (4 * context.threads)))
    try context.parallel((group.count + run - 1) / run) {
      let begin = group.lowerBound + $0 * run
      body(begin..<min(group.upperBound, begin + run))
    }
  }

  /// A tile's picture and the first pixel of its result.
  private func place(_ tile: Int) -> (image: Int, y: Int, x: Int) {
    let (line, column) = (tile / tileColumns, tile % tileColumns)
    return (line / tileRows, line % tileRows * 4, column * 4)
  }

  private func transformIn(_ tiles: Range<Int>, from source: ConvolvedLines, into transformed: Transformed) {
    let (matrix, values, stride, zeros) = (transformed.matrix, transformed.values, inputStride, zeros.pointer)
    let (height, width) = (map.height, map.width)
    let inputs = source.inputs.map { (pointer: $0.pointer, channels: $0.shape.columns) }
    // Values that are still to be converted stay in a compact buffer until then.
    let isDone = factors == .floats && !isCrossed, wideStride = Self.matrixStride(channels)
    let wide = TensorStorage(count: isDone ? 0 : 36 * wideStride)
    withUnsafeTemporaryAllocation(of: UnsafePointer<Float>.self, capacity: 36) { pixels in
      guard let base = pixels.baseAddress else { return }
      for tile in tiles {
        let (image, top, left) = place(tile)
        let target = values + (tile - transformed.first) * stride
        var place = isDone ? target : wide.pointer
        for input in inputs {
          for i in 0..<6 {
            let y = top + i - 1
            let isInside = y >= 0 && y < height
            let line = input.pointer + (isInside ? source.pixel(image: image, line: y) : 0) * input.channels
            for j in 0..<6 {
              let x = left + j - 1
              base[6 * i + j] = isInside && x >= 0 && x < width ? line + map.columnMap[x] * input.channels : zeros
            }
          }
          Kernels.active.winograd_input(input.channels, base, place, isDone ? matrix : wideStride)
          place += input.channels
        }
        factors.takeRows(36, k: channels, wide.pointer, stride: wideStride, into: target, stride: matrix)
        if isCrossed { cross(tile, wide.pointer, stride: wideStride, into: target, stride: matrix, in: transformed) }
      }
    }
  }

  /// Prepares a tile's 36 rows for crossed products, a run of channels at a time.
  private func cross(
    _ tile: Int, _ rows: UnsafePointer<Float>, stride: Int, into target: UnsafeMutablePointer<Float>, stride matrix: Int,
    in transformed: Transformed
  ) {
    for (index, run) in runs.enumerated() {
      let scales = transformed.scales(run: index, product: 0) + tile - transformed.first
      Kernels.active.cross_rows(
        36, run.count, levels, rows + run.lowerBound, stride, target + run.lowerBound, matrix, scales, scales + transformed.sums,
        transformed.count)
    }
  }

  /// Makes some panels of outputs for a block of tiles. Each of the 36 products is made for all panels in turn, while its rows are in the cache.
  /// If the weights are not kept, there is one panel. They are transformed here, a run of channels at a time, and used while in the cache.
  private func multiply(
    _ transformed: Transformed, tiles: Range<Int>, panels: Range<Int>, by kept: TensorStorage?, in context: ExecutionContext
  ) {
    let own = TensorStorage(count: kept == nil ? 36 * weightStride(min(channels, runLength)) : 0)
    let sums = Self.sumFloats(tiles.count)
    let m = TensorStorage(count: panels.count * sums)
    let first = tiles.lowerBound - transformed.first
    for (index, run) in runs.enumerated() where !context.isCancelled {
      if kept == nil { transformWindows(panel: panels.lowerBound, channels: run, into: own.pointer) }
      let begin = Int32(run.lowerBound == 0 ? CK_BEGIN_FRESH : CK_BEGIN_ACCUMULATE)
      for product in 0..<36 {
        let matrix = transformed.values + product * transformed.matrix
        let a = UnsafePointer(matrix + first * inputStride + factors.words(run.lowerBound))
        for panel in panels {
          let u = kept.map { place(of: run, panel: panel, in: $0) } ?? own.pointer
          let b = UnsafePointer(u + product * weightStride(run.count))
          let c = m.pointer + (panel - panels.lowerBound) * sums + product * Self.matrixStride(tiles.count * Self.panel)
          if isCrossed {
            let scales = transformed.scales(run: index, product: product) + first
            Kernels.active.gemm_panel_crossed?(
              tiles.count, run.count, a, inputStride, scales, scales + transformed.sums, b, b + run.count * Self.panel, c, Self.panel,
              begin, nil, nil, 0)
          } else {
            factors.multiply(
              tiles.count, columns: columns(of: panel), words: factors.words(run.count), a, stride: inputStride, b, into: c,
              stride: Self.panel,
              begin: begin)
          }
        }
      }
    }
    for panel in panels { transformOut(tiles, panel: panel, from: m.pointer + (panel - panels.lowerBound) * sums) }
  }

  /// The columns of a panel that hold outputs, in whole vectors.
  private func columns(of panel: Int) -> Int { min(Self.panel, (weights.outputs - panel * Self.panel + 15) / 16 * 16) }

  /// The floats that the 36 products of some tiles with a panel take.
  private static func sumFloats(_ tiles: Int) -> Int { 36 * matrixStride(tiles * panel) }

  private func transformOut(_ tiles: Range<Int>, panel: Int, from products: UnsafePointer<Float>) {
    let (height, width, outputs, first) = (map.height, map.width, weights.outputs, panel * Self.panel)
    let (result, residual) = (map.result.mutablePointer + first, map.residual.map { $0.pointer + first })
    let bias = (map.bias ?? zeros).pointer + first, nextBias = (map.bias?.shape.rows ?? 1) > 1 ? outputs : 0
    let columns = min(Self.panel, outputs - first), stride = Self.matrixStride(tiles.count * Self.panel)
    withUnsafeTemporaryAllocation(of: UnsafeMutablePointer<Float>?.self, capacity: 16) { pixels in
      withUnsafeTemporaryAllocation(of: UnsafePointer<Float>?.self, capacity: 16) { residuals in
        guard let targets = pixels.baseAddress, let added = residuals.baseAddress else { return }
        for tile in tiles {
          let (image, top, left) = place(tile)
          for i in 0..<16 {
            let (y, x) = (top + i / 4, left + i % 4)
            let offset = ((image * height + y) * width + x) * outputs
            let isInside = y < height && x < width
            targets[i] = isInside ? result + offset : nil
            added[i] = isInside ? residual.map { $0 + offset } : nil
          }
          Kernels.active.winograd_output(
            map.activation.code, columns, products + (tile - tiles.lowerBound) * Self.panel, stride, bias + image * nextBias,
            residual == nil ? nil : UnsafePointer(added), targets)
        }
      }
    }
  }
}

extension WinogradConvolution {
  /// Transforms a panel's 3×3 windows over some channels to `[36][channels][32]`, two channels in a word if these are pairs.
  private func transformWindows(panel: Int, channels: Range<Int>, into u: UnsafeMutablePointer<Float>) {
    let matrix = weightStride(channels.count)
    guard factors != .floats else {
      weights.transformWindows(panel: panel, channels: channels, into: u, stride: matrix)
      for product in 0..<(isCrossed ? 36 : 0) {
        let windows = u + product * matrix
        Kernels.active.cross_panel(channels.count, windows, windows + channels.count * Self.panel)
      }
      return
    }
    // So few channels at a time that they are still in the cache when they are converted to words.
    let length = 32, stride = Self.matrixStride(length * Self.panel)
    let wide = TensorStorage(count: 36 * stride)
    for begin in Swift.stride(from: channels.lowerBound, to: channels.upperBound, by: length) {
      let part = begin..<min(channels.upperBound, begin + length)
      weights.transformWindows(panel: panel, channels: part, into: wide.pointer, stride: stride)
      let target = u + factors.words(begin - channels.lowerBound) * Self.panel
      for product in 0..<36 { factors.takePanel(k: part.count, wide.pointer + product * stride, into: target + product * matrix) }
    }
  }
}

extension PackedMatrix {
  /// Transforms a panel's 3×3 windows over some channels for Winograd: 36 matrices `[channels][32]` at this stride.
  fileprivate func transformWindows(panel: Int, channels range: Range<Int>, into u: UnsafeMutablePointer<Float>, stride matrix: Int) {
    let channels = inputs / 9, width = Self.panelWidth
    let isInPlace = form.inPlace == .floats
    let scratch = TensorStorage(count: isInPlace ? 0 : 9 * range.count * width)
    var taps = UnsafePointer(scratch.pointer), stride = range.count * width
    for tap in 0..<9 {
      let begin = tap * channels + range.lowerBound
      let rows = self.panel(panel, rows: begin..<begin + range.count, scratch: scratch.pointer + tap * stride)
      // float32 weights are read in place.
      if tap == 0, isInPlace { (taps, stride) = (rows, channels * width) }
    }
    for channel in 0..<range.count {
      Kernels.active.winograd_weights(taps + channel * width, stride, u + channel * width, matrix)
    }
  }
}
