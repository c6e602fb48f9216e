import Foundation

/// A tensor as stored in a checkpoint: the file's own bytes (little-endian, row-major), usually mapped and not copied.
public struct WeightTensor: Sendable {
  /// The extents, outermost first, as PyTorch has them.
  public let shape: Shape
  /// The format of the elements in `data`.
  public let elementType: NumberFormat
  /// `shape.count` elements, row-major, little-endian.
  ///
  /// Formats of blocks are for matrices `[O, I]` and kernels `[O, C, kh, kw]` whose rows are whole blocks. The blocks of the O rows follow one another.
  public let data: Data
  /// The order of a kernel's values in blocks.
  public let order: BlockOrder
  /// True if the data are pages of a mapped file, which can be dropped from memory and read again.
  public let isMapped: Bool

  /// - Precondition: `data` holds exactly `shape.count` elements, and the shape can be cut into the format's blocks.
  public init(shape: Shape, elementType: NumberFormat, data: Data, isMapped: Bool = false, order: BlockOrder = .product) {
    precondition(data.count == elementType.bytes(of: shape, order: order), "\(data.count) bytes cannot hold \(shape) as \(elementType).")
    self.shape = shape
    self.elementType = elementType
    self.data = data
    self.isMapped = isMapped
    self.order = order
  }

  /// A weight without values, for networks that are counted and not computed.
  package init(extent shape: Shape, elementType: NumberFormat, order: BlockOrder = .product) {
    (self.shape, self.elementType, data, isMapped, self.order) = (shape, elementType, Data(), false, order)
  }

  /// Whether the tensor has no values.
  var isExtent: Bool { data.isEmpty && elementType.bytes(of: shape, order: order) != 0 }

  /// A weight of float32 values, for tests and for weights that are computed.
  public init(_ tensor: Tensor) {
    let bytes = UnsafeRawBufferPointer(start: tensor.pointer, count: tensor.count * 4)
    self.init(shape: tensor.shape, elementType: .float32, data: Data(bytes))
  }

  /// The same bytes under another shape.
  /// - Precondition: the counts are equal. With blocks, only axes of length 1 may be added or removed, because a block must not span two rows.
  public func reshaped(_ shape: Shape) -> WeightTensor {
    precondition(
      elementType.blockValues == 1 || shape.dimensions.filter { $0 != 1 } == self.shape.dimensions.filter { $0 != 1 },
      "Blocks of \(self.shape) cannot lie in \(shape).")
    return WeightTensor(shape: shape, elementType: elementType, data: data, isMapped: isMapped, order: order)
  }

  /// The rows `range` of the outermost axis: `[N, …]` → `[range.count, …]`.
  /// - Precondition: the range lies within the axis.
  public func rows(_ range: Range<Int>) -> WeightTensor {
    precondition(shape.rank > 0 && range.lowerBound >= 0 && range.upperBound <= shape[0], "Rows \(range) of \(shape).")
    if isExtent { return WeightTensor(extent: Shape([range.count] + shape.dimensions.dropFirst()), elementType: elementType, order: order) }
    let row = data.count / max(shape[0], 1)
    let start = data.startIndex + range.lowerBound * row
    return WeightTensor(
      shape: Shape([range.count] + shape.dimensions.dropFirst()), elementType: elementType,
      data: data[start..<start + range.count * row], isMapped: isMapped, order: order)
  }

  /// The values as float32, in the same shape.
  public func decoded() -> Tensor {
    // A plan for memory counts the weights that are kept, so this engine does not.
    if isExtent { return Tensor(counted: shape, by: .elsewhere) }
    let result = Tensor(uninitialized: shape)
    forEachPiece { elements, values in (result.mutablePointer + elements.lowerBound).update(from: values, count: elements.count) }
    return result
  }

  /// False if an element is infinite or not a number.
  public var isFinite: Bool {
    data.withUnsafeBytes { bytes in
      bytes.baseAddress.map { elementType.coding.areFinite(bytes.count / elementType.blockBytes, at: $0) } ?? true
    }
  }

  /// Lets the system drop the pages of the file that hold this tensor. The system reads them again when they are used.
  package func releasePages() {
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
