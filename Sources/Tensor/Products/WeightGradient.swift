import CLatentDiffusionKernels

/// The gradient of a matrix or a kernel.
extension CPUEngine {
  public func weightGradient(
    _ gradient: Tensor, inputs: [Tensor], resizedTo size: (height: Int, width: Int)?, geometry: ConvolutionGeometry,
    in context: ExecutionContext
  ) throws -> Tensor {
    let own = WeightGradient(gradient, inputs: inputs, size: size, geometry: geometry)
    let parts = Tensor(repeating: 0, shape: own.partsShape)
    try context.parallel(own.parts * own.slices.count) { own.run(part: $0 / own.slices.count, slice: $0 % own.slices.count, into: parts) }
    return own.parts == 1 ? parts.reshaped([parts.shape[1], parts.shape[2]]) : try parts.summed(in: context)
  }

  public func columnSums(_ x: Tensor, groups: Int, in context: ExecutionContext) throws -> Tensor {
    let columns = x.shape.columns, rows = x.shape.rows / max(groups, 1), run = max(16, 8192 / max(columns, 1))
    let runs = (rows + run - 1) / run
    let parts = Tensor(repeating: 0, shape: [groups, runs, columns]), result = Tensor(repeating: 0, shape: [groups, columns])
    try context.parallel(groups * runs) { task in
      let begin = task % runs * run, sums = parts.mutablePointer + task * columns
      for row in begin..<min(rows, begin + run) { add(columns, x.pointer + (task / runs * rows + row) * columns, to: sums) }
    }
    for task in 0..<groups * runs { add(columns, parts.pointer + task * columns, to: result.mutablePointer + task / runs * columns) }
    return result
  }
}

extension CPUEngine {
  public func rowProducts(_ a: Tensor, _ b: Tensor, in context: ExecutionContext) throws -> Tensor {
    let columns = a.shape.columns, result = Tensor(uninitialized: [a.shape.rows])
    try a.forRuns(in: context) { begin, rows in
      for row in begin..<begin + rows {
        var sum: Float = 0
        for i in row * columns..<(row + 1) * columns { sum += a.pointer[i] * b.pointer[i] }
        result.mutablePointer[row] = sum
      }
    }
    return result
  }
}

func add(_ count: Int, _ values: UnsafePointer<Float>, to sums: UnsafeMutablePointer<Float>) {
  for i in 0..<count { sums[i] += values[i] }
}

extension Tensor {
  /// The sum of the outermost tensors, added one after another: `[P, O, I]` → `[O, I]`.
  fileprivate func summed(in context: ExecutionContext) throws -> Tensor {
    let result = Tensor(uninitialized: [shape[1], shape[2]]), columns = shape[2]
    try context.parallel(shape[1]) { row in
      let target = result.mutablePointer + row * columns
      target.update(from: pointer + row * columns, count: columns)
      for part in 1..<shape[0] { add(columns, pointer + (part * shape[1] + row) * columns, to: target) }
    }
    return result
  }
}

/// dW[o, tap, c] = Σ g[p, o] · x[p + tap, c] over all pixels p of the result: a sum of outer products.
///
/// Tasks share the result's outputs and input channels (slices), and where those are few, the pixels (parts, which are added afterwards). How they do
/// follows from shapes alone. A task copies what it reads of some rows of pixels, so that a row of the copy goes on where the one before ends: the
/// pixels that a tap sees are then evenly spaced through all the rows, and each tap's product is one with many steps. Source: the idea of implicit
/// products for `wgrad` in Chetlur et al. 2014 (cuDNN).
struct WeightGradient {
  private let gradient: Tensor
  private let inputs: [Tensor]
  private let geometry: ConvolutionGeometry
  /// The input's row (column) at each row (column) of the resized picture.
  private let rowMap: [Int]
  private let columnMap: [Int]
  /// Rows and columns of the result; all rows of a matrix are one column.
  private let height: Int
  private let width: Int
  private let images: Int
  /// Whether nothing needs a copy: the inputs are rows of a matrix.
  private let isPointwise: Bool
  let slices: [Slice]
  let parts: Int

  /// Outputs and channels of one input: the block of the result that a task adds to.
  struct Slice {
    let outputs: Range<Int>
    let input: Int
    let channels: Range<Int>
    /// The place of the first channel among those of all inputs.
    let place: Int
    /// The floats of a pixel in the copy.
    var stride: Int { (channels.count + 7) / 8 * 8 }
  }

  /// The largest slices: their block of a 3×3 kernel's gradient stays in the second-level cache.
  private static let outputs = 128, channels = 64
  /// Pixels that are added at once: as many rows of copies as stay in the caches.
  private static let run = 256
  /// Tasks that are enough for all threads.
  private static let tasks = 16

  init(_ gradient: Tensor, inputs: [Tensor], size: (height: Int, width: Int)?, geometry: ConvolutionGeometry) {
    isPointwise = geometry == .pointwise && size == nil
    let inputs = isPointwise ? inputs.map { $0.reshaped([1, $0.shape.rows, 1, $0.shape.columns]) } : inputs
    (self.gradient, self.inputs, self.geometry) = (gradient, inputs, geometry)
    let whole = size ?? (inputs[0].shape[1], inputs[0].shape[2])
    rowMap = nearestIndices(from: inputs[0].shape[1], to: whole.height)
    columnMap = nearestIndices(from: inputs[0].shape[2], to: whole.width)
    (height, width, images) = (geometry.outputHeight(whole.height), geometry.outputWidth(whole.width), inputs[0].shape[0])
    slices = Self.slices(outputs: gradient.shape.columns, channels: inputs.map(\.shape.columns))
    parts = Self.parts(slices: slices.count, bands: images * Self.bands(height: height, width: width + Self.gap(geometry)))
  }

  private static func slices(outputs all: Int, channels: [Int]) -> [Slice] {
    var slices: [Slice] = [], place = 0
    for (input, count) in channels.enumerated() {
      for first in stride(from: 0, to: count, by: Self.channels) {
        for output in stride(from: 0, to: all, by: outputs) {
          slices.append(
            Slice(
              outputs: output..<min(all, output + outputs), input: input, channels: first..<min(count, first + Self.channels),
              place: place + first))
        }
      }
      place += count
    }
    return slices
  }

  /// Columns after a row of the copy, so that a window at its end does not see the next row.
  private static func gap(_ geometry: ConvolutionGeometry) -> Int { (geometry.kernelWidth - 1) / geometry.stride }
  private static func bandRows(width: Int) -> Int { max(1, run / max(width, 1)) }
  private static func bands(height: Int, width: Int) -> Int { (height + bandRows(width: width) - 1) / bandRows(width: width) }
  private static func parts(slices: Int, bands: Int) -> Int { max(1, min(bands, tasks / max(slices, 1))) }

  private var channels: Int { inputs.reduce(0) { $0 + $1.shape.columns } }
  private var taps: Int { geometry.kernelHeight * geometry.kernelWidth }
  /// A copied row's pixels of the result, with the gap after it.
  private var rowLength: Int { width + Self.gap(geometry) }
  private var bandRows: Int { Self.bandRows(width: rowLength) }
  private var bandsPerImage: Int { Self.bands(height: height, width: rowLength) }
  /// Rows of the resized picture that a band sees of each phase of the stride.
  private var lines: Int { bandRows + (geometry.kernelHeight - 1) / geometry.stride }

  /// `[parts, O, taps · C]`.
  var partsShape: Shape { [parts, gradient.shape.columns, taps * channels] }

  /// The temporary buffers of a task, in floats each: copies of the gradient and of the pixels. A product may read 16 floats beyond.
  var buffers: [Int] {
    [bandRows * rowLength * Self.outputs, geometry.stride * geometry.stride * lines * rowLength * Self.channels + 16]
  }

  func run(part: Int, slice index: Int, into sums: Tensor) {
    let slice = slices[index],
      target = sums.mutablePointer + part * sums.shape[1] * sums.shape[2] + slice.outputs.lowerBound * sums.shape[2]
    let bands = images * bandsPerImage, buffers = buffers.map { TensorStorage(count: $0) }
    // An array may be freed after its last use, while its buffers' pointers are in use.
    defer { withExtendedLifetime(buffers) {} }
    for band in bands * part / parts..<bands * (part + 1) / parts {
      let first = band % bandsPerImage * bandRows, rows = first..<min(height, first + bandRows), image = band / bandsPerImage
      if isPointwise, slice.channels.count.isMultiple(of: 8) {
        let (outputs, columns) = (gradient.shape.columns, inputs[slice.input].shape.columns)
        add(
          rows.count, gradient.pointer + first * outputs + slice.outputs.lowerBound, stride: outputs,
          inputs[slice.input].pointer + first * columns + slice.channels.lowerBound, stride: columns, slice, to: target + slice.place)
      } else {
        copyGradient(image, rows: rows, slice, into: buffers[0].pointer)
        copyPixels(image, rows: rows, slice, into: buffers[1].pointer)
        addTaps(rows.count * rowLength - Self.gap(geometry), buffers[0].pointer, buffers[1].pointer, slice, to: target)
      }
    }
  }

  /// - Parameter count: pixels of the copies, with the gaps between their rows.
  private func addTaps(
    _ count: Int, _ gradient: UnsafePointer<Float>, _ pixels: UnsafePointer<Float>, _ slice: Slice, to target: UnsafeMutablePointer<Float>
  ) {
    let step = geometry.stride, line = step * rowLength
    for first in stride(from: 0, to: count, by: Self.run) {
      for tap in 0..<taps {
        let (row, column) = (tap / geometry.kernelWidth, tap % geometry.kernelWidth)
        let place = (row % step * lines + row / step) * line + column + first * step
        add(
          min(Self.run, count - first), gradient + first * slice.outputs.count, stride: slice.outputs.count, pixels + place * slice.stride,
          stride: step * slice.stride, slice, to: target + tap * channels + slice.place)
      }
    }
  }

  /// target += aᵀ · b.
  private func add(
    _ count: Int, _ a: UnsafePointer<Float>, stride lda: Int, _ b: UnsafePointer<Float>, stride ldb: Int, _ slice: Slice,
    to target: UnsafeMutablePointer<Float>
  ) {
    Kernels.active.gemm_outer(
      slice.outputs.count, slice.channels.count, count, a, lda, b, ldb, target, taps * channels, Int32(CK_BEGIN_ACCUMULATE))
  }

  /// The gradient's rows, with zeros in the gaps: `[rows, width + gap, outputs]`.
  private func copyGradient(_ image: Int, rows: Range<Int>, _ slice: Slice, into buffer: UnsafeMutablePointer<Float>) {
    let all = gradient.shape.columns, count = slice.outputs.count
    for (line, row) in rows.enumerated() {
      let target = buffer + line * rowLength * count, source = gradient.pointer + (image * height + row) * width * all
      if count == all {
        target.update(from: source, count: width * count)
      } else {
        for x in 0..<width { (target + x * count).update(from: source + x * all + slice.outputs.lowerBound, count: count) }
      }
      (target + width * count).update(repeating: 0, count: (rowLength - width) * count)
    }
  }

  /// The picture's rows that the windows of a band see, with their padding: of each phase of the stride those rows that are a stride apart.
  private func copyPixels(_ image: Int, rows: Range<Int>, _ slice: Slice, into buffer: UnsafeMutablePointer<Float>) {
    let step = geometry.stride, length = step * rowLength * slice.stride
    for phase in 0..<min(step, geometry.kernelHeight) {
      for line in 0..<rows.count + (geometry.kernelHeight - 1 - phase) / step {
        let y = (rows.lowerBound + line) * step + phase - geometry.padding.top
        copyLine(image, y, slice, into: buffer + (phase * lines + line) * length)
      }
    }
  }

  private func copyLine(_ image: Int, _ y: Int, _ slice: Slice, into target: UnsafeMutablePointer<Float>) {
    let input = inputs[slice.input], all = input.shape.columns, count = slice.channels.count, length = geometry.stride * rowLength
    guard y >= 0, y < rowMap.count else { return target.update(repeating: 0, count: length * slice.stride) }
    let source = input.pointer + (image * input.shape[1] + rowMap[y]) * input.shape[2] * all + slice.channels.lowerBound
    let before = min(geometry.padding.left, length), seen = min(columnMap.count, length - before)
    target.update(repeating: 0, count: before * slice.stride)
    let first = target + before * slice.stride
    if count == all, count == slice.stride, columnMap.count == input.shape[2] {
      first.update(from: source, count: seen * count)
    } else {
      for x in 0..<seen {
        let pixel = first + x * slice.stride
        pixel.update(from: source + columnMap[x] * all, count: count)
        if count < slice.stride { (pixel + count).update(repeating: 0, count: slice.stride - count) }
      }
    }
    (first + seen * slice.stride).update(repeating: 0, count: (length - before - seen) * slice.stride)
  }
}

extension PackedMatrix {
  /// A gradient `[biasColumns, taps · C]`, as products have the matrix, in the order of the checkpoint: `[O, C · taps]`.
  func inCheckpointOrder(_ gradient: Tensor) -> Tensor {
    if let counted = Tensor.counted([outputs, inputs], like: [gradient]) { return counted }
    if !isGated, taps == 1 { return gradient }
    let result = Tensor(uninitialized: [outputs, inputs]), channels = inputs / taps
    let order = isGated ? Self.columns(ofGated: outputs) : (0..<outputs).map { $0 }
    for (row, output) in order.enumerated() {
      guard let output else { continue }
      let source = gradient.pointer + row * inputs, target = result.mutablePointer + output * inputs
      for channel in 0..<channels { for tap in 0..<taps { target[channel * taps + tap] = source[tap * channels + channel] } }
    }
    return result
  }
}
