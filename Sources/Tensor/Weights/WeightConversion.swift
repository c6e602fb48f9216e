import Foundation
import Synchronization

/// Why a tensor cannot stand in another form.
public enum WeightConversionError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A finite value is larger than the form can hold.
  case outOfRange(NumberFormat)
  /// A block with a value that is infinite or not a number has no scale.
  case notFinite
  /// A format that numbers are read in, and not written.
  case readOnly(NumberFormat)

  public var description: String {
    switch self {
    case .outOfRange(.float16): "A value is beyond ±65504, where half precision ends; bfloat16 and float32 can hold it."
    case .outOfRange(let format): "A value is beyond what \(format) can hold; float32 can hold it."
    case .notFinite: "A value is infinite or not a number, which cannot be quantised."
    case .readOnly(let format): "Weights cannot be written as \(format); take F32, F16, BF16 or Q8_0."
    }
  }
}

extension NumberFormat {
  /// The format that a tensor of this one and a shape gets where another is asked for: see `WeightTensor.elementType(convertedTo:)`.
  package func converted(to format: NumberFormat, shape: Shape) -> NumberFormat {
    format.blockValues > 1 && BlockLayout(shape, format) == nil ? ofSixteenBits : format
  }
}

extension WeightTensor {
  /// The format that `converted(to:)` gives: shapes that cannot be cut into blocks keep 16 bits, those they have or half precision.
  public func elementType(convertedTo format: NumberFormat) -> NumberFormat { elementType.converted(to: format, shape: shape) }

  /// The same values in another format: to the nearest that it has, ties to even, as PyTorch rounds. Widening is exact.
  ///
  /// Infinities and NaNs stay what they are, but not in blocks. What is in the format already is given back as it is; else the pages of the
  /// file are let go.
  ///
  /// - Parameters:
  ///   - format: of the result, where the shape allows it: see `elementType(convertedTo:)`.
  ///   - context: whose threads share the work; its cancellation is not heeded. Nil: only this one works.
  /// - Throws: `WeightConversionError`.
  public func converted(to format: NumberFormat, in context: ExecutionContext? = nil) throws(WeightConversionError) -> WeightTensor {
    let format = elementType(convertedTo: format)
    guard format != elementType, let layout = BlockLayout(shape, format) else { return self }
    guard let writer = format.coding as? any WritableNumbers.Type else { throw .readOnly(format) }
    guard layout.bytes > 0 else { return WeightTensor(shape: shape, elementType: format, data: Data()) }
    if format.blockValues > 1, !isFinite { throw .notFinite }
    let target = AlignedMemory.allocate(bytes: layout.bytes)
    let overflows = Atomic(false)
    forEachPiece(of: layout.unit, in: context) { elements, values in
      if !layout.encode(elements, of: values, into: target, by: writer) { overflows.store(true, ordering: .relaxed) }
    }
    // Only now: `Data` copies what is short, and lets go of it at once.
    let data = Data(bytesNoCopy: target, count: layout.bytes, deallocator: .custom { AlignedMemory.deallocate($0, bytes: $1) })
    if overflows.load(ordering: .relaxed) { throw .outOfRange(format) }
    releasePages()
    return WeightTensor(shape: shape, elementType: format, data: data)
  }

  /// Hands out all values as float32, some at a time.
  ///
  /// - Parameters:
  ///   - unit: pieces are multiples of it.
  ///   - context: whose threads call `body`, several at once; nil: this one does.
  func forEachPiece(
    of unit: Int = 1, in context: ExecutionContext? = nil, _ body: (_ elements: Range<Int>, _ values: UnsafePointer<Float>) -> Void
  ) {
    let count = shape.count
    guard count > 0, let layout = BlockLayout(shape, elementType) else { return }
    // Two formats of blocks have the same rows.
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
