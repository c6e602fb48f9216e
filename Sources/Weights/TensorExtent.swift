import Tensor

/// How much room a component's tensor takes.
package struct TensorExtent: Sendable {
  package let name: String
  package let shape: Shape
  /// Of the elements, as they are held.
  package let elementType: ElementType
  /// Of the elements in the file.
  package let storedType: ElementType

  /// True where the tensor is a matrix or a kernel, and packed.
  package var isMatrix: Bool { shape.rank > 1 && !isTable }
  /// Bytes of the packed matrix, of the vector in float32, or of a table that is no page of its file.
  package var heldBytes: Int {
    if isMatrix { return PackedMatrix.packedBytes(shape, as: elementType) }
    guard isTable else { return 4 * shape.count }
    return elementType == storedType ? 0 : elementType.bytes(of: shape) ?? Int.max
  }

  /// Rows that are looked up.
  private var isTable: Bool { name.contains("embeddings.") }
}
