import Tensor

extension [UInt8] {
  /// The values of a picture `[height, width, channels]`, with each line of each channel changed: row by row, or column by column.
  /// - Parameter change: takes the values of a line, and returns as many of 0…255.
  func changingLines(_ axis: Tensor.PixelAxis, width: Int, channels: Int, _ change: ([Int]) -> [Int]) -> [UInt8] {
    let row = width * channels, height = count / row
    let (length, step) = axis == .horizontal ? (width, channels) : (height, row)
    let starts = axis == .horizontal ? (0..<height).flatMap { y in (0..<channels).map { y * row + $0 } } : [Int](0..<row)
    var result = self
    for start in starts {
      let line = change((0..<length).map { Int(self[start + $0 * step]) })
      for (index, value) in line.enumerated() { result[start + index * step] = UInt8(value) }
    }
    return result
  }
}
