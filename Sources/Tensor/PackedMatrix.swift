import CKernels
import Foundation

/// Constant weights `[outputs, inputs]`, laid out for the matrix kernel: panels of 32 outputs, within a panel a row for each input.
///
/// Packed once at loading, since they never change and a general BLAS would repack them at every call. 16-bit weights stay
/// 16 bits wide and are widened a panel at a time while they are used, which costs under 1 % of a product. 8-bit weights are multiplied as they
/// are, with activations of 8 bits, where the processor has an instruction for it, and widened elsewhere.
///
/// The weights of a gated layer, whose outputs are values and then as many gates, have both halves side by side: 16 values and their 16 gates
/// in each panel, so that a product can end with the gating.
public struct PackedMatrix: Sendable {
  /// Rows of the matrix: features or channels of the result.
  public let outputs: Int
  /// Whether the second half of the outputs are gates of the first.
  public let isGated: Bool
  /// The length of the product's inner sum; for a convolution kernelHeight · kernelWidth · channels, in this order.
  public let inputs: Int
  let elementType: ElementType
  let storage: PackedStorage

  static let panelWidth = Int(CK_PANEL)
  private static let half = panelWidth / 2
  var panels: Int { isGated ? (outputs / 2 + Self.half - 1) / Self.half : (outputs + Self.panelWidth - 1) / Self.panelWidth }
  /// What a product with these weights makes.
  var resultColumns: Int { isGated ? outputs / 2 : outputs }
  /// What a product adds: for gated weights as many as the panels have columns.
  var biasColumns: Int { isGated ? panels * Self.panelWidth : outputs }

  /// The weights of a linear layer, `[outputs, inputs]`, or of a convolution, `[outputs, channels, kernelHeight, kernelWidth]`,
  /// as PyTorch stores them.
  ///
  /// - Parameter isGated: the second half of the outputs are gates of the first.
  /// - Precondition: the shape has rank 2 or 4, and gated weights an even number of outputs.
  /// - Throws: `CancellationError`.
  public init(_ weights: WeightTensor, isGated: Bool = false, in context: ExecutionContext) throws {
    precondition(weights.shape.rank == 2 || weights.shape.rank == 4, "Weights of shape \(weights.shape) are no matrix.")
    precondition(!isGated || weights.shape[0] % 2 == 0, "\(weights.shape[0]) outputs have no two halves.")
    let isConvolution = weights.shape.rank == 4
    let channels = weights.shape[1]
    let taps = isConvolution ? weights.shape[2] * weights.shape[3] : 1
    outputs = weights.shape[0]
    inputs = channels * taps
    self.isGated = isGated
    elementType = weights.elementType
    let panels = isGated ? (outputs / 2 + Self.half - 1) / Self.half : (outputs + Self.panelWidth - 1) / Self.panelWidth
    let panelBytes = elementType == .q8 ? inputs / QuantizedBlocks.blockValues * QuantizedBlocks.blockBytes : inputs * elementType.bytes
    storage = PackedStorage(bytes: panels * Self.panelWidth * panelBytes)
    try weights.data.withUnsafeBytes { bytes in
      switch elementType {
      case .float32: try pack(UInt32.self, from: bytes, channels: channels, taps: taps, in: context)
      case .float16, .bfloat16: try pack(UInt16.self, from: bytes, channels: channels, taps: taps, in: context)
      case .q8: try packBlocks(from: bytes, in: context)
      }
    }
    weights.releasePages()
  }

  /// The output at a column of a panel; nil where the panel has more columns than there are outputs.
  private func output(panel: Int, column: Int) -> Int? {
    guard isGated else {
      let output = panel * Self.panelWidth + column
      return output < outputs ? output : nil
    }
    let value = panel * Self.half + column % Self.half
    return value < outputs / 2 ? column / Self.half * (outputs / 2) + value : nil
  }

  /// A layer's bias `[outputs]` as products with these weights take it.
  public func arranged(_ bias: Tensor) -> Tensor {
    precondition(bias.shape == [outputs], "A bias \(bias.shape) for \(outputs) outputs.")
    guard isGated else { return bias }
    let columns = (0..<panels * Self.panelWidth).map { output(panel: $0 / Self.panelWidth, column: $0 % Self.panelWidth) }
    return Tensor(columns.map { $0.map { bias.pointer[$0] } ?? 0 }, shape: [columns.count])
  }

  private func pack<Bits: FixedWidthInteger>(
    _: Bits.Type, from bytes: UnsafeRawBufferPointer, channels: Int, taps: Int, in context: ExecutionContext
  ) throws {
    let width = Self.panelWidth
    let inputs = inputs
    let target = storage.pointer.bindMemory(to: Bits.self, capacity: storage.bytes / MemoryLayout<Bits>.size)
    let size = MemoryLayout<Bits>.size
    guard let source = bytes.baseAddress else { return }
    try context.parallel(panels) { panel in
      let columns = (0..<width).map { output(panel: panel, column: $0) }
      let begin = target + panel * inputs * width
      for channel in 0..<channels {
        for tap in 0..<taps {
          let row = begin + (tap * channels + channel) * width
          for column in 0..<width {
            row[column] =
              columns[column].map {
                source.loadUnaligned(fromByteOffset: ($0 * inputs + channel * taps + tap) * size, as: Bits.self)
              } ?? 0
          }
        }
      }
    }
  }

  /// Bytes of a panel's values, which its scales follow.
  private var valueBytes: Int { inputs * Self.panelWidth }
  /// Bytes of a panel of 8-bit weights.
  private var quantizedPanelBytes: Int { inputs / QuantizedBlocks.blockValues * QuantizedBlocks.blockBytes * Self.panelWidth }

  /// Blocks as they stand in a file to panels as the kernel takes them: four inputs of each output together, 128 added.
  private func packBlocks(from bytes: UnsafeRawBufferPointer, in context: ExecutionContext) throws {
    let width = Self.panelWidth, block = QuantizedBlocks.blockValues
    guard let source = bytes.baseAddress else { return }
    try context.parallel(panels) { panel in
      let begin = storage.pointer + panel * quantizedPanelBytes
      let values = begin.assumingMemoryBound(to: UInt8.self)
      let scales = (begin + valueBytes).assumingMemoryBound(to: UInt16.self)
      for column in 0..<width {
        let row = output(panel: panel, column: column).map { source + $0 * (inputs / block) * QuantizedBlocks.blockBytes }
        for index in 0..<inputs / block {
          let place = row.map { $0 + index * QuantizedBlocks.blockBytes }
          scales[index * width + column] = place?.loadUnaligned(as: UInt16.self) ?? 0
          for value in 0..<block {
            let q = place?.load(fromByteOffset: 2 + value, as: Int8.self) ?? 0
            let k = index * block + value
            values[(k / 4 * width + column) * 4 + k % 4] = UInt8(bitPattern: q) ^ 0x80
          }
        }
      }
    }
  }

  /// Whether products are made with bytes.
  var hasIntegerProduct: Bool { elementType == .q8 && biasColumns % Self.panelWidth == 0 && Kernels.active.gemm_panel_q8 != nil }

  /// Rows `k` of a panel of 8-bit weights.
  func bytes(_ index: Int, rows k: Range<Int>) -> QuantizedPanel {
    precondition(k.lowerBound % QuantizedBlocks.blockValues == 0, "Blocks are used whole.")
    let begin = storage.pointer + index * quantizedPanelBytes
    return QuantizedPanel(
      values: UnsafePointer((begin + k.lowerBound * Self.panelWidth).assumingMemoryBound(to: UInt8.self)),
      scales: UnsafePointer(
        (begin + valueBytes).assumingMemoryBound(to: UInt16.self) + k.lowerBound / QuantizedBlocks.blockValues * Self.panelWidth))
  }

  /// Rows `k` of a panel as floats: in place for float32 weights, widened into `scratch` (32 values a row) otherwise.
  @inline(__always)
  func panel(_ index: Int, rows k: Range<Int>, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    let start = (index * inputs + k.lowerBound) * Self.panelWidth
    let count = k.count * Self.panelWidth
    switch elementType {
    case .float32:
      return UnsafePointer(storage.pointer.assumingMemoryBound(to: Float.self) + start)
    case .float16:
      Kernels.active.widen_f16(count, storage.pointer.assumingMemoryBound(to: UInt16.self) + start, scratch)
    case .bfloat16:
      Kernels.active.widen_bf16(count, storage.pointer.assumingMemoryBound(to: UInt16.self) + start, scratch)
    case .q8:
      let panel = bytes(index, rows: k)
      Kernels.active.widen_q8(k.count, panel.values, panel.scales, scratch)
    }
    return UnsafePointer(scratch)
  }
}

/// Rows of a panel of 8-bit weights, as the kernels take them.
struct QuantizedPanel {
  let values: UnsafePointer<UInt8>
  let scales: UnsafePointer<UInt16>
}

/// Bytes aligned for SIMD, written once and then only read.
final class PackedStorage: @unchecked Sendable {
  let pointer: UnsafeMutableRawPointer
  let bytes: Int

  init(bytes: Int) {
    pointer = AlignedMemory.allocate(bytes: max(bytes, 64))
    self.bytes = bytes
  }

  deinit { AlignedMemory.deallocate(pointer, bytes: max(bytes, 64)) }
}
