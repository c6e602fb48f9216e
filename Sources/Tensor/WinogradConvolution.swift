import CKernels

/// One convolution, cut into groups of tiles whose transforms fit the last-level cache; a group goes through three loops: tiles in, 36
/// products, tiles out.
///
/// Source: Lavin and Gray 2015, F(4×4, 3×3): 16 pixels cost 36 products a channel pair instead of 144. The weights are transformed anew at
/// each call: that costs some hundredths of the products, where keeping them would take 36 floats for 9 weights.
struct WinogradConvolution {
  let inputs: [Tensor]
  let weights: PackedMatrix
  let bias: Tensor?
  let residual: Tensor?
  let result: Tensor
  private let rowMap: [Int]
  private let columnMap: [Int]
  private let tileRows: Int
  private let tileColumns: Int
  /// A pixel beyond the picture's edge, or no bias.
  private let zeros: Tensor

  /// Whether this is worth the transforms: for 3×3 windows that move by one, maps that are large beside the weights, and channels that fill
  /// the matrix kernel's tiles. Measured on an AVX-512 processor; it does not depend on the number of pictures, so that neither do they.
  static func isWorthwhile(_ geometry: ConvolutionGeometry, inputs: [Tensor], height: Int, width: Int, outputs: Int) -> Bool {
    let channels = inputs.reduce(0) { $0 + $1.shape.columns }
    return isPossible(geometry) && height * width >= 32 * 32 && channels >= 32 && outputs >= 32
  }

  static func isPossible(_ geometry: ConvolutionGeometry) -> Bool {
    geometry == ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
  }

  /// Floats that the transforms of a group may take.
  private static let groupFloats = 6 << 20
  /// Inner channels of one pass of the matrix kernel.
  private static let chunk = 320

  init(inputs: [Tensor], weights: PackedMatrix, bias: Tensor?, residual: Tensor?, result: Tensor) {
    (self.inputs, self.weights, self.bias, self.residual, self.result) = (inputs, weights, bias, residual, result)
    rowMap = nearestIndices(from: inputs[0].shape[1], to: result.shape[1])
    columnMap = nearestIndices(from: inputs[0].shape[2], to: result.shape[2])
    tileRows = (result.shape[1] + 3) / 4
    tileColumns = (result.shape[2] + 3) / 4
    zeros = Tensor(repeating: 0, shape: [max(inputs.map(\.shape.columns).max() ?? 0, weights.outputs)])
  }

  /// Floats from a tile's channels to the next tile's: a little more than the channels, so that tiles do not fall on the same cache sets.
  private var inputStride: Int { channels + 16 }
  private var channels: Int { weights.inputs / 9 }
  private var outputStride: Int { weights.outputs + 16 }

  func run(in context: ExecutionContext) throws {
    let tiles = result.shape[0] * tileRows * tileColumns
    guard tiles > 0 else { return }
    let most = max(28, Self.groupFloats / (36 * (channels + weights.outputs)) / 14 * 14)
    let groups = (tiles + most - 1) / most
    let size = (tiles + groups - 1) / groups
    let transformedWeights = try transformWeights(in: context)
    let transformed = TensorStorage(count: 36 * size * inputStride)
    let products = TensorStorage(count: 36 * size * outputStride)
    for begin in stride(from: 0, to: tiles, by: size) {
      let group = begin..<min(tiles, begin + size)
      try forRuns(of: group, in: context) { transformIn($0, group: group, into: transformed.pointer) }
      try multiply(transformed.pointer, by: transformedWeights.pointer, group: group, into: products.pointer, in: context)
      try forRuns(of: group, in: context) { transformOut($0, group: group, from: products.pointer) }
    }
  }

  /// `[36][panel][channel][32]`.
  private func transformWeights(in context: ExecutionContext) throws -> TensorStorage {
    let (channels, panels) = (channels, weights.panels)
    let result = TensorStorage(count: 36 * panels * channels * 32)
    try context.parallel(panels) { panel in
      let scratch = TensorStorage(count: weights.elementType == .float32 ? 0 : weights.inputs * 32)
      let taps = weights.panel(panel, rows: 0..<weights.inputs, scratch: scratch.pointer)
      for channel in 0..<channels {
        Kernels.active.winograd_weights(
          taps + channel * 32, channels * 32, result.pointer + (panel * channels + channel) * 32, panels * channels * 32)
      }
    }
    return result
  }

  private func forRuns(of group: Range<Int>, in context: ExecutionContext, _ body: (Range<Int>) -> Void) throws {
    let run = 8
    try context.parallel((group.count + run - 1) / run) {
      let begin = group.lowerBound + $0 * run
      body(begin..<min(group.upperBound, begin + run))
    }
  }

  /// Where a tile stands.
  private func place(_ tile: Int) -> (image: Int, y: Int, x: Int) {
    let (line, column) = (tile / tileColumns, tile % tileColumns)
    return (line / tileRows, line % tileRows * 4, column * 4)
  }

  private func transformIn(_ tiles: Range<Int>, group: Range<Int>, into buffer: UnsafeMutablePointer<Float>) {
    withUnsafeTemporaryAllocation(of: UnsafePointer<Float>.self, capacity: 36) { pixels in
      for tile in tiles {
        let (image, top, left) = place(tile)
        var target = buffer + (tile - group.lowerBound) * inputStride
        for input in inputs {
          let (height, width, channels) = (input.shape[1], input.shape[2], input.shape[3])
          for i in 0..<6 {
            for j in 0..<6 {
              let (y, x) = (top + i - 1, left + j - 1)
              let inside = y >= 0 && y < rowMap.count && x >= 0 && x < columnMap.count
              pixels[6 * i + j] =
                inside ? input.pointer + ((image * height + rowMap[y]) * width + columnMap[x]) * channels : zeros.pointer
            }
          }
          guard let base = pixels.baseAddress else { return }
          Kernels.active.winograd_input(channels, base, target, group.count * inputStride)
          target += channels
        }
      }
    }
  }

  private func multiply(
    _ a: UnsafePointer<Float>, by b: UnsafePointer<Float>, group: Range<Int>, into c: UnsafeMutablePointer<Float>,
    in context: ExecutionContext
  ) throws {
    let panels = weights.panels
    // A run of panels for each task, long enough that the tiles it reads are paid for.
    let splits = max(1, min(panels / 4, 4))
    try context.parallel(36 * splits) { task in
      let (product, split) = (task / splits, task % splits)
      let left = a + product * group.count * inputStride
      let right = c + product * group.count * outputStride
      for inner in stride(from: 0, to: channels, by: Self.chunk) {
        for panel in panels * split / splits..<panels * (split + 1) / splits {
          Kernels.active.gemm_panel(
            group.count, min(32, weights.outputs - panel * 32), min(Self.chunk, channels - inner), left + inner, inputStride,
            b + ((product * panels + panel) * channels + inner) * 32, right + panel * 32, outputStride,
            Int32(inner == 0 ? CK_BEGIN_FRESH : CK_BEGIN_ACCUMULATE), nil, nil, 0)
        }
      }
    }
  }

  private func transformOut(_ tiles: Range<Int>, group: Range<Int>, from buffer: UnsafePointer<Float>) {
    let (height, width, outputs) = (result.shape[1], result.shape[2], weights.outputs)
    withUnsafeTemporaryAllocation(of: UnsafeMutablePointer<Float>?.self, capacity: 16) { pixels in
      withUnsafeTemporaryAllocation(of: UnsafePointer<Float>?.self, capacity: 16) { residuals in
        for tile in tiles {
          let (image, top, left) = place(tile)
          for i in 0..<16 {
            let (y, x) = (top + i / 4, left + i % 4)
            let offset = ((image * height + y) * width + x) * outputs
            let inside = y < height && x < width
            pixels[i] = inside ? result.mutablePointer + offset : nil
            residuals[i] = inside ? residual.map { $0.pointer + offset } : nil
          }
          guard let targets = pixels.baseAddress else { return }
          Kernels.active.winograd_output(
            outputs, buffer + (tile - group.lowerBound) * outputStride, group.count * outputStride,
            bias.map { $0.pointer + ($0.shape.rows > 1 ? image * outputs : 0) } ?? zeros.pointer,
            residual == nil ? nil : residuals.baseAddress, targets)
        }
      }
    }
  }
}
