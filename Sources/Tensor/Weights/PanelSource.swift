import CLatentDiffusionKernels

/// Makes panels of a product's right operand from something else, some rows at a time.
protocol PanelSource: Sendable {
  /// The same with everything that it reads in memory. Every product begins with this.
  /// - Throws: `CancellationError`.
  func resident(in context: ExecutionContext) throws -> any PanelSource
  /// Writes rows `k` of a panel, 32 values each. Columns beyond the last output are zeros.
  func make(_ panel: Int, rows k: Range<Int>, into target: UnsafeMutablePointer<Float>)
}

/// The form of panels that are made at each use. They are never in memory as a whole.
enum MadePanels: PanelForm {
  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer) {}
  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> { UnsafePointer(scratch) }
}

extension PackedMatrix {
  /// The matrix that takes a product's gradient back to its rows: Wᵀ. For a kernel `[O, C, kh, kw]` it is `[C, O, kh, kw]` with the taps in opposite
  /// order, which takes the gradient of a convolution back to its pictures. Its values are read from this matrix at each use.
  ///
  /// - Parameter taps: of the kernel; 1 for a linear layer.
  func transposed(taps: Int = 1) -> PackedMatrix {
    PackedMatrix(inputs / taps, inputs: biasColumns * taps, madeBy: TransposedPanels(of: self, taps: taps))
  }
}

/// The panels of a transposed matrix.
private struct TransposedPanels: PanelSource {
  private let matrix: PackedMatrix
  private let taps: Int
  private let channels: Int
  private static let width = PackedMatrix.panelWidth

  init(of matrix: PackedMatrix, taps: Int) { (self.matrix, self.taps, channels) = (matrix, taps, matrix.inputs / taps) }

  func resident(in context: ExecutionContext) throws -> any PanelSource {
    TransposedPanels(of: try matrix.resident(in: context), taps: taps)
  }

  func make(_ panel: Int, rows k: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    let outputs = matrix.biasColumns
    let first = panel * Self.width, columns = min(Self.width, channels - first)
    withUnsafeTemporaryAllocation(of: Float.self, capacity: (Self.width + 2 * matrix.granularity) * Self.width) { scratch in
      guard let scratch = scratch.baseAddress else { return }
      var row = k.lowerBound
      while row < k.upperBound {
        // Row r is output r % O under tap r / O. The outputs of one panel of the matrix are made together.
        let output = row % outputs, tap = taps - 1 - row / outputs
        let source = output / Self.width, column = output % Self.width
        let count = min(k.upperBound - row, Self.width - column, outputs - output)
        let begin = tap * channels + first, grain = matrix.granularity
        let read = begin / grain * grain..<min(matrix.inputs, (begin + columns + grain - 1) / grain * grain)
        let values = matrix.panel(source, rows: read, scratch: scratch) + (begin - read.lowerBound) * Self.width + column
        transpose(values, columns: columns, rows: count, into: target + (row - k.lowerBound) * Self.width)
        row += count
      }
    }
  }

  private func transpose(_ values: UnsafePointer<Float>, columns: Int, rows: Int, into target: UnsafeMutablePointer<Float>) {
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: Self.width) { lines in
      for column in 0..<Self.width { lines[column] = column < columns ? UnsafeRawPointer(values + column * Self.width) : nil }
      if let lines = lines.baseAddress { ck_pack_panel(4, rows, 1, lines, target) }
    }
  }
}
