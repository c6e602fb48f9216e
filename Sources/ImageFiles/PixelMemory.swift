/// Pixels of other programs in memory.
extension Picture {
  /// A picture of bytes, 8 bits a channel, row after row from the top.
  ///
  /// - Parameters:
  ///   - bytes: of all rows.
  ///   - width: pixels.
  ///   - height: pixels.
  ///   - stride: bytes from the beginning of a row to that of the next; nil: rows follow one another without a gap.
  ///   - channels: 1 for grey, 2 for grey and alpha, 3 for red, green and blue, 4 for those and alpha, which colours are not multiplied by.
  /// - Throws: `ImageFileError.unusablePixels` where these numbers make no picture, or the bytes are too few.
  public init(bytes: [UInt8], width: Int, height: Int, stride: Int? = nil, channels: Int) throws(ImageFileError) {
    func fail(_ reason: String) -> ImageFileError { .unusablePixels(reason: reason) }
    guard (1...4).contains(channels) else { throw fail("\(channels) channels are not from 1 to 4") }
    guard (1...Self.largestSide).contains(width), (1...Self.largestSide).contains(height), width * height <= Self.largestPixelCount else {
      throw fail("\(width)×\(height) pixels are none or too many")
    }
    let stride = stride ?? width * channels
    // The last row needs no gap behind it.
    let (gaps, overflow) = stride.multipliedReportingOverflow(by: height - 1)
    guard stride >= width * channels, !overflow, gaps <= bytes.count - width * channels else {
      throw fail("\(bytes.count) bytes are too few for \(height) rows of \(stride)")
    }
    var pixels: [UInt8] = [], alpha: [UInt8] = []
    pixels.reserveCapacity(width * height * 3)
    for start in Swift.stride(from: 0, through: gaps, by: stride) {
      for pixel in 0..<width {
        let place = start + pixel * channels
        pixels += channels < 3 ? [bytes[place], bytes[place], bytes[place]] : Array(bytes[place..<place + 3])
        if channels.isMultiple(of: 2) { alpha.append(bytes[place + channels - 1]) }
      }
    }
    self.init(width: width, height: height, pixels: pixels, alpha: channels.isMultiple(of: 2) ? alpha : nil)
  }

  /// The bytes of a picture, row after row from the top.
  ///
  /// - Parameters:
  ///   - channels: 3 for red, green and blue, on white where the picture is transparent; 4 for those and alpha.
  ///   - stride: bytes from the beginning of a row to that of the next; nil: without a gap. Gaps are 0.
  /// - Throws: `ImageFileError.unusablePixels` for other channels and for a stride below a row's bytes.
  public func bytes(channels: Int = 3, stride: Int? = nil) throws(ImageFileError) -> [UInt8] {
    guard [3, 4].contains(channels) else { throw .unusablePixels(reason: "\(channels) channels are not 3 or 4") }
    let row = width * channels, stride = stride ?? row
    guard stride >= row, stride <= 1 << 40 / height else {
      throw .unusablePixels(reason: "a stride of \(stride) is not from the \(row) bytes of a row up")
    }
    let all = channels == 3 ? flattened().pixels : rgba ?? withAlpha(255)
    guard stride > row else { return all }
    var bytes = [UInt8](repeating: 0, count: stride * height)
    for y in 0..<height { bytes.replaceSubrange(y * stride..<y * stride + row, with: all[y * row..<(y + 1) * row]) }
    return bytes
  }

  private func withAlpha(_ value: UInt8) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(width * height * 4)
    for start in Swift.stride(from: 0, to: pixels.count, by: 3) {
      bytes += pixels[start..<start + 3]
      bytes.append(value)
    }
    return bytes
  }
}
