import Foundation

/// How numbers stand in a file.
public enum ElementType: String, Sendable, CaseIterable {
  /// IEEE single precision.
  case float32 = "F32"
  /// IEEE half precision.
  case float16 = "F16"
  /// The upper half of a float32.
  case bfloat16 = "BF16"

  /// Of one element.
  public var bytes: Int { self == .float32 ? 4 : 2 }
}

/// A tensor as it stands in a checkpoint: the file's own bytes (little-endian, row-major), usually mapped and not copied.
public struct WeightTensor: Sendable {
  /// The extents, outermost first, as PyTorch has them.
  public let shape: Shape
  /// How the elements stand in `data`.
  public let elementType: ElementType
  /// `shape.count` elements, row-major, little-endian.
  public let data: Data
  /// True where the data are pages of a mapped file, which can be dropped from memory and read again.
  public let isMapped: Bool

  /// - Precondition: `data` holds exactly `shape.count` elements.
  public init(shape: Shape, elementType: ElementType, data: Data, isMapped: Bool = false) {
    precondition(shape.count != Int.max && data.count == shape.count * elementType.bytes, "\(data.count) bytes cannot hold \(shape).")
    self.shape = shape
    self.elementType = elementType
    self.data = data
    self.isMapped = isMapped
  }

  /// float32 values as a weight, for tests and for weights that are computed.
  public init(_ tensor: Tensor) {
    let bytes = UnsafeRawBufferPointer(start: tensor.pointer, count: tensor.count * 4)
    self.init(shape: tensor.shape, elementType: .float32, data: Data(bytes))
  }

  /// The same bytes under another shape.
  /// - Precondition: the counts are equal.
  public func reshaped(_ shape: Shape) -> WeightTensor {
    WeightTensor(shape: shape, elementType: elementType, data: data, isMapped: isMapped)
  }

  /// The rows `range` of the outermost axis: `[N, …]` → `[range.count, …]`.
  /// - Precondition: the range lies within the axis.
  public func rows(_ range: Range<Int>) -> WeightTensor {
    precondition(shape.rank > 0 && range.lowerBound >= 0 && range.upperBound <= shape[0], "Rows \(range) of \(shape).")
    let row = data.count / max(shape[0], 1)
    let start = data.startIndex + range.lowerBound * row
    return WeightTensor(
      shape: Shape([range.count] + shape.dimensions.dropFirst()), elementType: elementType,
      data: data[start..<start + range.count * row], isMapped: isMapped)
  }

  /// The values as float32, in the same shape.
  public func decoded() -> Tensor {
    let result = Tensor(uninitialized: shape)
    data.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress, result.count > 0 else { return }
      // The file's alignment is not ours: go through a buffer that is aligned for its elements.
      switch elementType {
      case .float32:
        UnsafeMutableRawPointer(result.mutablePointer).copyMemory(from: base, byteCount: bytes.count)
      case .float16, .bfloat16:
        let aligned = UnsafeMutablePointer<UInt16>.allocate(capacity: result.count)
        defer { aligned.deallocate() }
        UnsafeMutableRawPointer(aligned).copyMemory(from: base, byteCount: bytes.count)
        let widen = elementType == .float16 ? Kernels.active.widen_f16 : Kernels.active.widen_bf16
        widen(result.count, aligned, result.mutablePointer)
      }
    }
    return result
  }

  /// False where an element is infinite or not a number.
  public var isFinite: Bool {
    data.withUnsafeBytes { bytes in
      switch elementType {
      case .float32: exponentsLeaveRoom(bytes, mask: 0x7F80_0000 as UInt32)
      case .float16: exponentsLeaveRoom(bytes, mask: 0x7C00 as UInt16)
      case .bfloat16: exponentsLeaveRoom(bytes, mask: 0x7F80 as UInt16)
      }
    }
  }

  /// Lets the system drop the pages of the file that hold this tensor; they come back from the file if read again.
  func releasePages() {
    guard isMapped else { return }
    data.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      let page = Int(sysconf(Int32(_SC_PAGESIZE)))
      let begin = (Int(bitPattern: base) + page - 1) / page * page
      let end = (Int(bitPattern: base) + bytes.count) / page * page
      if let pointer = UnsafeMutableRawPointer(bitPattern: begin), end > begin { _ = madvise(pointer, end - begin, MADV_DONTNEED) }
    }
  }
}

/// True where no exponent has all its bits set, as those of infinities and NaNs have.
private func exponentsLeaveRoom<Bits: FixedWidthInteger & UnsignedInteger>(_ bytes: UnsafeRawBufferPointer, mask: Bits) -> Bool {
  // Such an exponent, and only such a one, carries into the sign's place when one is added. No branch: this runs as fast as memory.
  let one = mask & (0 &- mask)
  var carries: Bits = 0
  for index in 0..<bytes.count / MemoryLayout<Bits>.size {
    carries |= (bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Bits>.size, as: Bits.self) & mask) &+ one
  }
  return carries & ~(Bits.max >> 1) == 0
}
