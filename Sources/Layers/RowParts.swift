import Tensor

extension Tensor {
  /// What a layer that sees each row by itself makes of all rows: some at a time where the features of all take much memory, as those of clips do. What lies
  /// between a layer's first and last operation then is there for some rows only.
  ///
  /// An observer and a tape see all rows at once.
  ///
  /// - Parameters:
  ///   - rows: of the features.
  ///   - rowBytes: of a row's features.
  ///   - unit: the number of rows in a part divides this.
  ///   - body: makes the rows of a part.
  /// - Throws: what the body throws.
  static func inParts(
    of rows: Int, rowBytes: Int, dividing unit: Int, in context: ExecutionContext, _ body: (Range<Int>) throws -> Tensor
  ) throws -> Tensor {
    guard context.mayRearrange, rows > 1, rows * rowBytes > largestPart else { return try body(0..<rows) }
    let count = (1...unit).last { unit.isMultiple(of: $0) && $0 * rowBytes <= largestPart } ?? 1
    var result: Tensor?
    for start in stride(from: 0, to: rows, by: count) {
      let part = try body(start..<start + count), size = Array(part.shape.dimensions.dropFirst())
      var all = result.take() ?? .zeros(Shape([rows] + size), like: part)
      all.replaceRows(from: start, with: part)
      result = all
    }
    return result ?? Tensor(shape: [0])
  }

  /// Bytes of the features of a part. The rows of a batch of common pictures are fewer.
  private static var largestPart: Int { 64 << 20 }
}
