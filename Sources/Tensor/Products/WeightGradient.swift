/// The gradient of a matrix or a kernel.
extension CPUEngine {
  public func weightGradient(
    _ gradient: Tensor, inputs: [Tensor], resizedTo size: (height: Int, width: Int)?, geometry: ConvolutionGeometry,
    in context: ExecutionContext
  ) throws -> Tensor {
    let patches = Patches(inputs, size: size, geometry: geometry)
    let (rows, outputs) = (gradient.shape.rows, gradient.shape.columns)
    let result = Tensor(uninitialized: [outputs, patches.inner])
    let turned = try gradient.turned(in: context)
    try MatrixProduct(
      left: .matrix(turned.pointer, stride: rows), rows: outputs,
      weights: PackedMatrix(patches.inner, inputs: rows, madeBy: WindowPanels(patches: patches)), result: result, bias: nil, residual: nil,
      activation: .none
    ).run(in: context)
    return result
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

/// The windows of a convolution as the right operand of a product: row r of a panel has 32 values of window r.
private struct WindowPanels: PanelSource {
  let patches: Patches

  func resident(in context: ExecutionContext) throws -> any PanelSource { self }

  func make(_ panel: Int, rows k: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    let width = PackedMatrix.panelWidth, columns = panel * width..<min(patches.inner, (panel + 1) * width)
    if columns.count < width { target.update(repeating: 0, count: k.count * width) }
    patches.gather(columns: columns, rows: k, into: target, stride: width)
  }
}

extension Tensor {
  /// Rows as columns: `[…, C]` → `[C, R]`.
  fileprivate func turned(in context: ExecutionContext) throws -> Tensor {
    let (rows, columns) = (shape.rows, shape.columns), block = 64
    let result = Tensor(uninitialized: [columns, rows])
    try context.parallel((rows + block - 1) / block) { task in
      let range = task * block..<min(rows, (task + 1) * block)
      for first in stride(from: 0, to: columns, by: 16) {
        for column in first..<min(columns, first + 16) {
          for row in range { result.mutablePointer[column * rows + row] = pointer[row * columns + column] }
        }
      }
    }
    return result
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
