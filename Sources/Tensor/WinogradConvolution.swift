import CKernels

/// The weights of a 3×3 convolution of stride 1 with one zero around, transformed so that 16 pixels cost 36 products a channel pair
/// instead of 144. Source: Lavin and Gray 2015, F(4×4, 3×3).
///
/// Four times as many numbers as the window itself, in float32: for layers whose maps are large beside their channels.
public struct WinogradWeights: Sendable {
  /// Channels of the result.
  public let outputs: Int
  /// Channels of the inputs, all together.
  public let channels: Int
  /// `[36][panel][channel][32]`.
  private let storage: PackedStorage

  private var panels: Int { (outputs + 31) / 32 }

  /// - Parameter packed: the weights of a 3×3 convolution.
  /// - Throws: `CancellationError`.
  public init(_ packed: PackedMatrix, in context: ExecutionContext) throws {
    precondition(packed.inputs % 9 == 0, "\(packed.inputs) inputs are no 3×3 window.")
    outputs = packed.outputs
    channels = packed.inputs / 9
    storage = PackedStorage(bytes: 36 * packed.panels * channels * 32 * 4)
    let target = storage.pointer.bindMemory(to: Float.self, capacity: storage.bytes / 4)
    let (channels, panels) = (channels, packed.panels)
    try context.parallel(panels) { panel in
      let scratch = TensorStorage(count: packed.inputs * 32)
      let taps = packed.panel(panel, rows: 0..<packed.inputs, scratch: scratch.pointer)
      for channel in 0..<channels {
        Kernels.active.winograd_weights(
          taps + channel * 32, channels * 32, target + (panel * channels + channel) * 32, panels * channels * 32)
      }
    }
  }

  /// The rows `inner` of a panel of one of the 36 products.
  fileprivate func panel(_ index: Int, product: Int, inner: Int) -> UnsafePointer<Float> {
    UnsafePointer(storage.pointer.assumingMemoryBound(to: Float.self)) + ((product * panels + index) * channels + inner) * 32
  }
}

extension Tensor {
  /// A 3×3 convolution of stride 1 with one zero around; arguments as in `convolution`.
  ///
  /// Differs from the direct sum by about 1e-5 of the result's size.
  ///
  /// - Returns: `[N, H, W, O]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public static func convolution(
    _ inputs: [Tensor], resizedTo size: (height: Int, width: Int)? = nil, weights: WinogradWeights, bias: Tensor,
    adding residual: Tensor? = nil, in context: ExecutionContext
  ) throws -> Tensor {
    precondition(
      inputs.reduce(0) { $0 + $1.shape.columns } == weights.channels, "\(inputs.map(\.shape)) meet \(weights.channels) channels.")
    let (height, width) = size ?? (inputs[0].shape[1], inputs[0].shape[2])
    let result = Tensor(uninitialized: [inputs[0].shape[0], height, width, weights.outputs])
    precondition(residual.map { $0.shape == result.shape } ?? true, "The residual does not match \(result.shape).")
    precondition(bias.shape.columns == weights.outputs, "The bias does not match \(weights.outputs) outputs.")
    try WinogradConvolution(inputs: inputs, weights: weights, bias: bias, residual: residual, result: result).run(in: context)
    return result
  }
}

/// One convolution, cut into groups of tiles whose transforms fit the last-level cache; a group goes through three loops: tiles in, 36
/// products, tiles out.
private struct WinogradConvolution {
  let inputs: [Tensor]
  let weights: WinogradWeights
  let bias: Tensor
  let residual: Tensor?
  let result: Tensor
  private let rowMap: [Int]
  private let columnMap: [Int]
  private let tileRows: Int
  private let tileColumns: Int
  private let zeros: Tensor

  /// Floats that the transforms of a group may take.
  private static let groupFloats = 6 << 20
  /// Inner channels of one pass of the matrix kernel.
  private static let chunk = 320

  init(inputs: [Tensor], weights: WinogradWeights, bias: Tensor, residual: Tensor?, result: Tensor) {
    (self.inputs, self.weights, self.bias, self.residual, self.result) = (inputs, weights, bias, residual, result)
    rowMap = nearestIndices(from: inputs[0].shape[1], to: result.shape[1])
    columnMap = nearestIndices(from: inputs[0].shape[2], to: result.shape[2])
    tileRows = (result.shape[1] + 3) / 4
    tileColumns = (result.shape[2] + 3) / 4
    zeros = Tensor(repeating: 0, shape: [inputs.map(\.shape.columns).max() ?? 0])
  }

  /// Floats from a tile's channels to the next tile's: a little more than the channels, so that tiles do not fall on the same cache sets.
  private var inputStride: Int { weights.channels + 16 }
  private var outputStride: Int { weights.outputs + 16 }

  func run(in context: ExecutionContext) throws {
    let tiles = result.shape[0] * tileRows * tileColumns
    guard tiles > 0 else { return }
    let most = max(28, Self.groupFloats / (36 * (weights.channels + weights.outputs)) / 14 * 14)
    let groups = (tiles + most - 1) / most
    let size = (tiles + groups - 1) / groups
    let transformed = TensorStorage(count: 36 * size * inputStride)
    let products = TensorStorage(count: 36 * size * outputStride)
    for begin in stride(from: 0, to: tiles, by: size) {
      let group = begin..<min(tiles, begin + size)
      try forRuns(of: group, in: context) { transformIn($0, group: group, into: transformed.pointer) }
      try multiply(transformed.pointer, group: group, into: products.pointer, in: context)
      try forRuns(of: group, in: context) { transformOut($0, group: group, from: products.pointer) }
    }
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
    _ a: UnsafePointer<Float>, group: Range<Int>, into c: UnsafeMutablePointer<Float>, in context: ExecutionContext
  ) throws {
    let panels = (weights.outputs + 31) / 32
    // A run of panels for each task, long enough that the tiles it reads are paid for.
    let splits = max(1, min(panels / 4, 4))
    try context.parallel(36 * splits) { task in
      let (product, split) = (task / splits, task % splits)
      let left = a + product * group.count * inputStride
      let right = c + product * group.count * outputStride
      for inner in stride(from: 0, to: weights.channels, by: Self.chunk) {
        for panel in panels * split / splits..<panels * (split + 1) / splits {
          Kernels.active.gemm_panel(
            group.count, min(32, weights.outputs - panel * 32), min(Self.chunk, weights.channels - inner), left + inner, inputStride,
            weights.panel(panel, product: product, inner: inner), right + panel * 32, outputStride,
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
            bias.pointer + (bias.shape.rows > 1 ? image * outputs : 0), residual == nil ? nil : residuals.baseAddress, targets)
        }
      }
    }
  }
}
