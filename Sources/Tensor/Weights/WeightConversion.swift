import Foundation
import Synchronization

/// Why a tensor cannot stand in another form.
public enum WeightConversionError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A finite value is larger than the form can hold.
  case outOfRange(ElementType)
  /// A block with a value that is infinite or not a number has no scale.
  case notFinite

  public var description: String {
    switch self {
    case .outOfRange(.float16): "A value is beyond ±65504, where half precision ends; bfloat16 and float32 can hold it."
    case .outOfRange(let type): "A value is beyond what \(type.rawValue) can hold; float32 can hold it."
    case .notFinite: "A value is infinite or not a number, which cannot be quantised."
    }
  }
}

extension ElementType {
  /// The type that a tensor of this one and a shape gets where another is asked for: see `WeightTensor.elementType(convertedTo:)`.
  package func converted(to type: ElementType, shape: Shape) -> ElementType {
    guard type == .q8, QuantizedBlocks(shape) == nil else { return type }
    return self == .bfloat16 ? .bfloat16 : .float16
  }
}

extension WeightTensor {
  /// The type that `converted(to:)` gives: shapes that are not quantised keep 16 bits, those they have or half precision.
  public func elementType(convertedTo type: ElementType) -> ElementType { elementType.converted(to: type, shape: shape) }

  /// The same values in another form: to the nearest that it has, ties to even, as PyTorch rounds. Widening is exact.
  ///
  /// Infinities and NaNs stay what they are, but for `q8`. What is in the form already is given back as it is; else the pages of the file are
  /// let go.
  ///
  /// - Parameters:
  ///   - type: of the result, where the shape allows it: see `elementType(convertedTo:)`.
  ///   - context: whose threads share the work; its cancellation is not heeded. Nil: only this one works.
  /// - Throws: `WeightConversionError`.
  public func converted(to type: ElementType, in context: ExecutionContext? = nil) throws(WeightConversionError) -> WeightTensor {
    let type = elementType(convertedTo: type)
    guard type != elementType, let bytes = type.bytes(of: shape) else { return self }
    guard bytes > 0 else { return WeightTensor(shape: shape, elementType: type, data: Data()) }
    let target = AlignedMemory.allocate(bytes: bytes)
    let problem: WeightConversionError? =
      switch type {
      case .float32: widen(to: target, in: context)
      case .float16: round(to: target, in: context, as: HalfPrecision.self)
      case .bfloat16: round(to: target, in: context, as: BrainPrecision.self)
      case .q8: quantize(to: target, in: context)
      }
    // Only now: `Data` copies what is short, and lets go of it at once.
    let data = Data(bytesNoCopy: target, count: bytes, deallocator: .custom { AlignedMemory.deallocate($0, bytes: $1) })
    if let problem { throw problem }
    releasePages()
    return WeightTensor(shape: shape, elementType: type, data: data)
  }

  private func widen(to target: UnsafeMutableRawPointer, in context: ExecutionContext?) -> WeightConversionError? {
    let target = target.bindMemory(to: Float.self, capacity: shape.count)
    forEachPiece(in: context) { elements, values in (target + elements.lowerBound).update(from: values, count: elements.count) }
    return nil
  }

  private func round<Format: RoundedFormat>(
    to target: UnsafeMutableRawPointer, in context: ExecutionContext?, as format: Format.Type
  ) -> WeightConversionError? {
    let target = target.bindMemory(to: UInt16.self, capacity: shape.count)
    let overflows = Atomic(false)
    forEachPiece(in: context) { elements, values in
      let rounded = target + elements.lowerBound
      var largest: UInt32 = 0
      for index in 0..<elements.count {
        rounded[index] = Format.rounded(values[index])
        let size = values[index].bitPattern & 0x7FFF_FFFF
        largest = max(largest, size < 0x7F80_0000 ? size : 0)
      }
      if largest >= Format.overflow { overflows.store(true, ordering: .relaxed) }
    }
    return overflows.load(ordering: .relaxed) ? .outOfRange(Format.elementType) : nil
  }

  private func quantize(to target: UnsafeMutableRawPointer, in context: ExecutionContext?) -> WeightConversionError? {
    guard let blocks = QuantizedBlocks(shape) else { return nil }
    guard isFinite else { return .notFinite }
    let overflows = Atomic(false)
    forEachPiece(of: blocks.rowValues, in: context) { elements, values in
      let first = elements.lowerBound / blocks.rowValues
      for row in 0..<elements.count / blocks.rowValues {
        let scale = blocks.encodeRow(values + row * blocks.rowValues, into: target + (first + row) * blocks.rowBytes)
        if HalfPrecision.rounded(scale) >= 0x7C00 { overflows.store(true, ordering: .relaxed) }
      }
    }
    return overflows.load(ordering: .relaxed) ? .outOfRange(.q8) : nil
  }

  /// Hands out all values as float32, some at a time.
  ///
  /// - Parameters:
  ///   - unit: pieces are multiples of it.
  ///   - context: whose threads call `body`, several at once; nil: this one does.
  func forEachPiece(
    of unit: Int = 1, in context: ExecutionContext? = nil, _ body: (_ elements: Range<Int>, _ values: UnsafePointer<Float>) -> Void
  ) {
    let unit = QuantizedBlocks(shape).map(\.rowValues).flatMap { elementType == .q8 ? $0 : nil } ?? unit
    let count = shape.count
    guard count > 0 else { return }
    let length = max(1, (1 << 14) / unit) * unit
    data.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      func piece(_ index: Int) {
        let elements = index * length..<min((index + 1) * length, count)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: elements.count) { values in
          guard let values = values.baseAddress else { return }
          read(elements, of: base, into: values)
          body(elements, values)
        }
      }
      let pieces = (count + length - 1) / length
      if let context { context.parallelToTheEnd(pieces, piece) } else { for index in 0..<pieces { piece(index) } }
    }
  }

  /// - Parameter elements: of `q8`, whole rows.
  private func read(_ elements: Range<Int>, of base: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    switch elementType {
    case .float32:
      UnsafeMutableRawPointer(values).copyMemory(from: base + elements.lowerBound * 4, byteCount: elements.count * 4)
    case .float16, .bfloat16:
      // The file's alignment is not ours: go through a buffer that is aligned for its elements.
      withUnsafeTemporaryAllocation(of: UInt16.self, capacity: elements.count) { aligned in
        guard let aligned = aligned.baseAddress else { return }
        UnsafeMutableRawPointer(aligned).copyMemory(from: base + elements.lowerBound * 2, byteCount: elements.count * 2)
        let widen = elementType == .float16 ? Kernels.active.widen_f16 : Kernels.active.widen_bf16
        widen(elements.count, aligned, values)
      }
    case .q8:
      guard let blocks = QuantizedBlocks(shape) else { return }
      let first = elements.lowerBound / blocks.rowValues
      for row in 0..<elements.count / blocks.rowValues {
        blocks.decodeRow(base + (first + row) * blocks.rowBytes, into: values + row * blocks.rowValues)
      }
    }
  }
}
