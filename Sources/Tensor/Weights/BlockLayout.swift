/// The order of a kernel's values in blocks. Formats without blocks always have the tensor's.
public enum BlockOrder: Sendable {
  /// A row is `[kh, kw, C]`, the order of a product: a block holds channels of one tap.
  case product
  /// A row is `[C, kh, kw]`, as in GGUF files.
  case tensor
}

/// How the values of a tensor lie in the blocks of its format.
///
/// Formats without blocks store the values in order, for any shape. Blocks are for matrices `[O, I]` and kernels `[O, C, kh, kw]` whose rows are whole blocks:
/// I, and C or C · kh · kw, depending on the order, are multiples of the block length. The blocks of the O rows follow one another.
struct BlockLayout {
  private let coding: any NumberCoding.Type
  private let channels: Int
  private let taps: Int
  /// Values are read and written in multiples of this number. With blocks, it is a whole row.
  let unit: Int
  /// The bytes of all values.
  let bytes: Int

  /// Nil if the shape cannot be cut into blocks, or if its bytes do not fit in an `Int`.
  init?(_ shape: Shape, _ format: NumberFormat, order: BlockOrder = .product) {
    let length = format.blockValues
    coding = format.coding
    guard shape.count != Int.max else { return nil }
    if length == 1 {
      (channels, taps, unit) = (1, 1, 1)
    } else {
      guard shape.rank == 2 || shape.rank == 4, shape.count > 0, shape.count < Int.max / 2 else { return nil }
      unit = shape.count / shape[0]
      (channels, taps) = order == .product ? (shape[1], unit / shape[1]) : (unit, 1)
      guard channels % length == 0 else { return nil }
    }
    let (bytes, overflow) = (shape.count / length).multipliedReportingOverflow(by: format.blockBytes)
    guard !overflow else { return nil }
    self.bytes = bytes
  }

  private func place(of element: Int) -> Int { element / coding.blockValues * coding.blockBytes }

  /// Decodes values in the tensor's order: a row is `[channels][taps]`.
  /// - Parameter elements: whole units.
  func decode(_ elements: Range<Int>, of base: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    guard taps > 1 else {
      return coding.decode(elements.count / coding.blockValues, from: base + place(of: elements.lowerBound), into: values)
    }
    forEachTap(of: elements) { first, place, run in
      coding.decode(channels / coding.blockValues, from: base + place, into: run)
      for channel in 0..<channels { values[first + channel * taps] = run[channel] }
    }
  }

  /// Encodes values in the tensor's order.
  ///
  /// - Parameters:
  ///   - elements: whole units.
  ///   - writer: the format's encoder.
  /// - Returns: false if a finite value is larger than the format can hold.
  func encode(
    _ elements: Range<Int>, of values: UnsafePointer<Float>, into base: UnsafeMutableRawPointer, by writer: any WritableNumbers.Type
  ) -> Bool {
    guard taps > 1 else {
      return writer.encode(elements.count / coding.blockValues, of: values, into: base + place(of: elements.lowerBound))
    }
    var fits = true
    forEachTap(of: elements) { first, place, run in
      for channel in 0..<channels { run[channel] = values[first + channel * taps] }
      fits = writer.encode(channels / coding.blockValues, of: run, into: base + place) && fits
    }
    return fits
  }

  /// Calls `body` for each tap with a buffer for its channels, the index of its first value in `elements`, and the byte offset of its first block.
  private func forEachTap(of elements: Range<Int>, _ body: (_ first: Int, _ place: Int, _ run: UnsafeMutablePointer<Float>) -> Void) {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: channels) { run in
      guard let run = run.baseAddress else { return }
      for row in 0..<elements.count / unit {
        for tap in 0..<taps { body(row * unit + tap, place(of: elements.lowerBound + row * unit + tap * channels), run) }
      }
    }
  }
}
