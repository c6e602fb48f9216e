import Tensor

/// How much memory a component's tensor takes.
package struct TensorExtent: Sendable {
  package let name: String
  package let shape: Shape
  /// The format of the elements in memory.
  package let elementType: NumberFormat
  /// The format of the elements in the file.
  package let storedType: NumberFormat
  /// Bytes of the packed matrix, of the float32 vector, or of a table that is not mapped from its file.
  package let heldBytes: Int

  /// The order of a kernel's values in blocks.
  let order: BlockOrder

  /// - Returns: nil if the bytes do not fit in an `Int`: no file has such a tensor.
  init?(name: String, shape: Shape, elementType: NumberFormat, storedType: NumberFormat, order: BlockOrder = .product) {
    let kind = Kind(name, shape)
    let bytes: Int? =
      switch kind {
      case .matrix: PackedMatrix.packedBytes(shape, of: elementType)
      case .table: elementType == storedType ? 0 : elementType.bytes(of: shape, order: order)
      case .vector: NumberFormat.float32.bytes(of: shape)
      }
    guard let bytes else { return nil }
    (self.name, self.shape, self.elementType, self.storedType) = (name, shape, elementType, storedType)
    (self.kind, heldBytes, self.order) = (kind, bytes, order)
  }

  private let kind: Kind

  /// Whether a matrix can be packed anew from its file: one that is converted or widened is no pages of it.
  package var isStreamable: Bool { elementType == storedType }

  /// True if the tensor is a matrix or a kernel, which is packed.
  package var isMatrix: Bool { kind == .matrix }

  private enum Kind {
    case vector, matrix
    /// Rows that are looked up.
    case table

    init(_ name: String, _ shape: Shape) {
      self = name.contains("embeddings.") ? .table : shape.rank > 1 ? .matrix : .vector
    }
  }
}

/// A component's tensors without values, for networks that are counted and not computed.
package struct ExtentSource: WeightSource {
  private let extents: [String: TensorExtent]
  package let names: Set<String>

  package init(_ extents: [TensorExtent]) {
    self.extents = Dictionary(extents.map { ($0.name, $0) }) { first, _ in first }
    names = Set(self.extents.keys)
  }

  package func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor {
    guard let extent = extents[name] else { throw .missing(name: name, similar: nil) }
    guard extent.shape == shape else { throw .wrongShape(name: name, expected: shape, found: extent.shape) }
    return WeightTensor(extent: shape, elementType: extent.elementType, order: extent.order)
  }
}
