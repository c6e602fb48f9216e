import Foundation

extension Data {
  /// The elements of a strided view, one after the other, row-major: what PyTorch's `contiguous()` makes.
  ///
  /// - Parameters:
  ///   - shape: the view's extents, outermost first.
  ///   - strides: how many elements lie between neighbours along each axis.
  ///   - elementBytes: the bytes of an element.
  /// - Precondition: the data begin with the view's first element and hold all others. Strides are not negative.
  package func gathered(shape: [Int], strides: [Int], elementBytes: Int) -> Data {
    let rows = Shape(Array(shape.dropLast())).count, columns = shape.last ?? 1, step = (strides.last ?? 1) * elementBytes
    guard rows > 0, columns > 0 else { return Data() }
    var result = Data(count: rows * columns * elementBytes)
    withUnsafeBytes { source in
      result.withUnsafeMutableBytes { target in
        guard var from = source.baseAddress, var to = target.baseAddress else { return }
        var place = [Int](repeating: 0, count: Swift.max(shape.count - 1, 0))
        for _ in 0..<rows {
          copyElements(columns, from: from, step: step, to: to, bytes: elementBytes)
          to += columns * elementBytes
          // The next row, counted like a number whose last digit is the innermost axis.
          for axis in place.indices.reversed() {
            place[axis] += 1
            from += strides[axis] * elementBytes
            guard place[axis] == shape[axis] else { break }
            from -= shape[axis] * strides[axis] * elementBytes
            place[axis] = 0
          }
        }
      }
    }
    return result
  }
}

private func copyElements(_ count: Int, from: UnsafeRawPointer, step: Int, to: UnsafeMutableRawPointer, bytes: Int) {
  switch bytes {
  case 1: copyElements(count, from: from, step: step, to: to, as: UInt8.self)
  case 2: copyElements(count, from: from, step: step, to: to, as: UInt16.self)
  case 4: copyElements(count, from: from, step: step, to: to, as: UInt32.self)
  default: for index in 0..<count { (to + index * bytes).copyMemory(from: from + index * step, byteCount: bytes) }
  }
}

private func copyElements<Bits: FixedWidthInteger>(
  _ count: Int, from: UnsafeRawPointer, step: Int, to: UnsafeMutableRawPointer, as type: Bits.Type
) {
  let bytes = MemoryLayout<Bits>.size
  for index in 0..<count {
    to.storeBytes(of: from.loadUnaligned(fromByteOffset: index * step, as: type), toByteOffset: index * bytes, as: type)
  }
}
