import Foundation

/// How numbers stand in a file.
public enum ElementType: String, Sendable, CaseIterable {
  case float32 = "F32"
  case float16 = "F16"
  case bfloat16 = "BF16"

  public var bytes: Int { self == .float32 ? 4 : 2 }
}

/// A tensor as it stands in a checkpoint: the file's own bytes (little-endian, row-major), usually mapped and not copied.
public struct WeightTensor: Sendable {
  public let shape: Shape
  public let elementType: ElementType
  public let data: Data

  /// - Precondition: `data` holds exactly `shape.count` elements.
  public init(shape: Shape, elementType: ElementType, data: Data) {
    precondition(shape.count != Int.max && data.count == shape.count * elementType.bytes, "\(data.count) bytes cannot hold \(shape).")
    self.shape = shape
    self.elementType = elementType
    self.data = data
  }

  /// float32 values as a weight, for tests and for weights that are computed.
  public init(_ tensor: Tensor) {
    let bytes = UnsafeRawBufferPointer(start: tensor.pointer, count: tensor.count * 4)
    self.init(shape: tensor.shape, elementType: .float32, data: Data(bytes))
  }

  /// The same bytes under another shape.
  /// - Precondition: the counts are equal.
  public func reshaped(_ shape: Shape) -> WeightTensor { WeightTensor(shape: shape, elementType: elementType, data: data) }

  /// The rows `range` of the outermost axis.
  /// - Precondition: the range lies within the axis.
  public func rows(_ range: Range<Int>) -> WeightTensor {
    precondition(shape.rank > 0 && range.lowerBound >= 0 && range.upperBound <= shape[0], "Rows \(range) of \(shape).")
    let row = data.count / max(shape[0], 1)
    let start = data.startIndex + range.lowerBound * row
    return WeightTensor(
      shape: Shape([range.count] + shape.dimensions.dropFirst()), elementType: elementType,
      data: data[start..<start + range.count * row])
  }
}
