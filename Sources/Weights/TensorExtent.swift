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
  package var isMatrix: Bool { shape.rank > 1 && !name.contains("embeddings.") }
  /// Bytes of the packed matrix, or of the vector in float32.
  package var heldBytes: Int { isMatrix ? PackedMatrix.packedBytes(shape, as: elementType) : 4 * shape.count }
}
