import Foundation

/// Constant weights `[outputs, inputs]`, laid out for the matrix kernel: panels of 32 outputs, within a panel a row for each input.
///
/// Packed once at loading, since they never change and a general BLAS would repack them at every call. 16-bit weights stay
/// 16 bits wide and are widened a panel at a time while they are used, which costs under 1 % of a product.
public struct PackedMatrix: Sendable {
  /// Rows of the matrix: features or channels of the result.
  public let outputs: Int
  /// The length of the product's inner sum; for a convolution kernelHeight · kernelWidth · channels, in this order.
  public let inputs: Int
  let elementType: ElementType
  let storage: PackedStorage

  static let panelWidth = 32
  var panels: Int { (outputs + Self.panelWidth - 1) / Self.panelWidth }

  /// The weights of a linear layer, `[outputs, inputs]`, or of a convolution, `[outputs, channels, kernelHeight, kernelWidth]`,
  /// as PyTorch stores them.
  ///
  /// - Precondition: the shape has rank 2 or 4.
  /// - Throws: `CancellationError`.
  public init(_ weights: WeightTensor, in context: ExecutionContext) throws {
    precondition(weights.shape.rank == 2 || weights.shape.rank == 4, "Weights of shape \(weights.shape) are no matrix.")
    let weights = Self.unquantized(weights, in: context)
    let isConvolution = weights.shape.rank == 4
    let channels = weights.shape[1]
    let taps = isConvolution ? weights.shape[2] * weights.shape[3] : 1
    outputs = weights.shape[0]
    inputs = channels * taps
    elementType = weights.elementType
    storage = PackedStorage(bytes: (outputs + 31) / 32 * 32 * inputs * elementType.bytes)
    try weights.data.withUnsafeBytes { bytes in
      switch elementType {
      case .float32: try pack(UInt32.self, from: bytes, channels: channels, taps: taps, in: context)
      case .float16, .bfloat16: try pack(UInt16.self, from: bytes, channels: channels, taps: taps, in: context)
      case .q8: break
      }
    }
    weights.releasePages()
  }

  /// Quantised weights as float32, others as they are.
  private static func unquantized(_ weights: WeightTensor, in context: ExecutionContext) -> WeightTensor {
    weights.elementType == .q8 ? (try? weights.converted(to: .float32, in: context)) ?? weights : weights
  }

  private func pack<Bits: FixedWidthInteger>(
    _: Bits.Type, from bytes: UnsafeRawBufferPointer, channels: Int, taps: Int, in context: ExecutionContext
  ) throws {
    let width = Self.panelWidth
    let (outputs, inputs) = (outputs, inputs)
    let target = storage.pointer.bindMemory(to: Bits.self, capacity: storage.bytes / MemoryLayout<Bits>.size)
    let size = MemoryLayout<Bits>.size
    guard let source = bytes.baseAddress else { return }
    try context.parallel(panels) { panel in
      let valid = min(width, outputs - panel * width)
      let begin = target + panel * inputs * width
      if valid < width { begin.update(repeating: 0, count: inputs * width) }
      for channel in 0..<channels {
        for tap in 0..<taps {
          let row = begin + (tap * channels + channel) * width
          var offset = (panel * width * inputs + channel * taps + tap) * size
          for column in 0..<valid {
            row[column] = source.loadUnaligned(fromByteOffset: offset, as: Bits.self)
            offset += inputs * size
          }
        }
      }
    }
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
    case .q8: break
    }
    return UnsafePointer(scratch)
  }
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
