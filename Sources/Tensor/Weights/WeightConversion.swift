import Foundation
import Synchronization

/// Why a tensor cannot be converted to another format.
public enum WeightConversionError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A finite value is larger than the format can hold.
  case outOfRange(NumberFormat)
  /// A block with a value that is infinite or not a number has no scale.
  case notFinite
  /// A format that can be read but not written.
  case readOnly(NumberFormat)

  public var description: String {
    switch self {
    case .outOfRange(.float16): "A value is beyond ±65504, where half precision ends; bfloat16 and float32 can hold it."
    case .outOfRange(let format): "A value is beyond what \(format) can hold; float32 can hold it."
    case .notFinite: "A value is infinite or not a number, which cannot be quantised."
    case .readOnly(let format): "Weights cannot be written as \(format); take F32, F16, BF16, Q8_0 or Q4_0."
    }
  }
}

extension NumberFormat {
  /// The format of a tensor of this format and shape after a conversion: see `WeightTensor.elementType(convertedTo:)`.
  package func converted(to format: NumberFormat, shape: Shape) -> NumberFormat {
    format.blockValues > 1 && BlockLayout(shape, format) == nil ? ofSixteenBits : format
  }
}

extension WeightTensor {
  /// The format that `converted(to:)` gives. Shapes that cannot be cut into blocks get 16 bits: bfloat16 stays, all else gets half precision.
  public func elementType(convertedTo format: NumberFormat) -> NumberFormat { elementType.converted(to: format, shape: shape) }

  /// The same values in another format, rounded to the nearest, ties to even, as PyTorch rounds. Widening is exact.
  ///
  /// Infinities and NaNs are kept, except in formats with blocks, where they are an error. Blocks get a product's order. A tensor that is so already is
  /// returned unchanged. Otherwise the pages of its file are released.
  ///
  /// - Parameters:
  ///   - format: the format of the result, if the shape allows it: see `elementType(convertedTo:)`.
  ///   - context: its threads share the work, and its cancellation is ignored. Nil: only this thread works.
  /// - Throws: `WeightConversionError`.
  public func converted(to format: NumberFormat, in context: ExecutionContext? = nil) throws(WeightConversionError) -> WeightTensor {
    let format = elementType(convertedTo: format)
    guard format != elementType || isReordered, let layout = BlockLayout(shape, format) else { return self }
    guard let writer = format.coding as? any WritableNumbers.Type else { throw .readOnly(format) }
    guard layout.bytes > 0 else { return WeightTensor(shape: shape, elementType: format, data: Data()) }
    if format.blockValues > 1, !isFinite { throw .notFinite }
    let target = AlignedMemory.allocate(bytes: layout.bytes)
    let overflows = Atomic(false)
    forEachPiece(of: layout.unit, in: context) { elements, values in
      if !layout.encode(elements, of: values, into: target, by: writer) { overflows.store(true, ordering: .relaxed) }
    }
    // This comes after the writing, because `Data` copies short contents and frees the original at once.
    let data = Data(bytesNoCopy: target, count: layout.bytes, deallocator: .custom { AlignedMemory.deallocate($0, bytes: $1) })
    if overflows.load(ordering: .relaxed) { throw .outOfRange(format) }
    releasePages()
    return WeightTensor(shape: shape, elementType: format, data: data)
  }

  /// The values times one number, or each row of the outermost axis times its own, as float32.
  ///
  /// - Precondition: there are as many factors as rows, or one.
  package func scaled(by factors: Tensor) -> WeightTensor {
    precondition(factors.count == 1 || factors.count == shape.dimensions.first, "\(factors.count) factors for \(shape).")
    let result = decoded(), row = result.count / factors.count, values = result.mutablePointer
    for index in 0..<factors.count {
      let factor = factors.pointer[index]
      for value in index * row..<(index + 1) * row { values[value] *= factor }
    }
    return WeightTensor(result)
  }

  /// Whether blocks have another order than a product's.
  private var isReordered: Bool {
    elementType.blockValues > 1 && order != .product && shape.dimensions.dropFirst(2).contains { $0 != 1 }
  }

  /// Calls `body` with all values as float32, a piece at a time.
  ///
  /// - Parameters:
  ///   - unit: the length of a piece is a multiple of it.
  ///   - context: its threads call `body`, several at once. Nil: this thread does.
  func forEachPiece(
    of unit: Int = 1, in context: ExecutionContext? = nil, _ body: (_ elements: Range<Int>, _ values: UnsafePointer<Float>) -> Void
  ) {
    let count = shape.count
    guard count > 0, let layout = BlockLayout(shape, elementType, order: order) else { return }
    // If both formats have blocks, both units are whole rows.
    let unit = max(unit, layout.unit)
    let length = max(1, (1 << 14) / unit) * unit
    data.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      func piece(_ index: Int) {
        let elements = index * length..<min((index + 1) * length, count)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: elements.count) { values in
          guard let values = values.baseAddress else { return }
          layout.decode(elements, of: base, into: values)
          body(elements, values)
        }
      }
      let pieces = (count + length - 1) / length
      if let context { context.parallelToTheEnd(pieces, piece) } else { for index in 0..<pieces { piece(index) } }
    }
  }
}
