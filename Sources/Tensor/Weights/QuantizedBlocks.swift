/// How the values of a quantised matrix or kernel lie in blocks of 32; see `WeightTensor.data`.
struct QuantizedBlocks {
  /// Rows, which are a matrix's or kernel's outputs.
  let rows: Int
  /// Inputs of a matrix, channels of a kernel.
  let channels: Int
  /// Places of a kernel's window.
  let taps: Int

  /// Values with a common scale.
  static let blockValues = 32
  /// The scale and the values.
  static let blockBytes = 34
  /// q lies between this and its negative, so that both signs have the same steps.
  static let largest: Float = 127
  /// Half precision ends here, and so do the scales.
  static let largestScale: Float = 65504

  /// Nil for a shape that is not quantised.
  init?(_ shape: Shape) {
    guard shape.rank == 2 || shape.rank == 4, shape.count > 0, shape.count < Int.max / 2, shape[1] % Self.blockValues == 0 else {
      return nil
    }
    (rows, channels) = (shape[0], shape[1])
    taps = shape.rank == 4 ? shape[2] * shape[3] : 1
  }

  /// Values of a row.
  var rowValues: Int { channels * taps }
  /// Bytes of a row.
  var rowBytes: Int { rowValues / Self.blockValues * Self.blockBytes }

  /// A row's values, `[channels][taps]`, of its blocks, which lie `[taps][channels]`.
  func decodeRow(_ source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    var block = source
    for tap in 0..<taps {
      for channel in stride(from: 0, to: channels, by: Self.blockValues) {
        let scale = HalfPrecision.widened(block.loadUnaligned(as: UInt16.self))
        let steps = block + 2
        let target = values + channel * taps + tap
        if taps == 1 {
          for index in 0..<Self.blockValues { target[index] = scale * Float(steps.load(fromByteOffset: index, as: Int8.self)) }
        } else {
          for index in 0..<Self.blockValues { target[index * taps] = scale * Float(steps.load(fromByteOffset: index, as: Int8.self)) }
        }
        block += Self.blockBytes
      }
    }
  }

  /// A row's blocks of its values: d = max |x| / 127 in half precision, q = x / d to the nearest whole number.
  ///
  /// - Returns: the largest max |x| / 127; what is not finite is not seen here.
  func encodeRow(_ values: UnsafePointer<Float>, into target: UnsafeMutableRawPointer) -> Float {
    var block = target
    var largestScale: Float = 0
    withUnsafeTemporaryAllocation(of: Float.self, capacity: Self.blockValues) { gathered in
      guard let x = gathered.baseAddress else { return }
      for tap in 0..<taps {
        for channel in stride(from: 0, to: channels, by: Self.blockValues) {
          let source = values + channel * taps + tap
          var most: UInt32 = 0
          for index in 0..<Self.blockValues {
            x[index] = source[index * taps]
            // Without the sign, the bits of floats are ordered as their sizes are.
            most = max(most, x[index].bitPattern & 0x7FFF_FFFF)
          }
          let exact = Float(bitPattern: most) / Self.largest
          largestScale = max(largestScale, exact)
          let bits = HalfPrecision.rounded(exact)
          block.storeBytes(of: bits, as: UInt16.self)
          let scale = HalfPrecision.widened(bits)
          let steps = block + 2
          for index in 0..<Self.blockValues {
            // Where the scale is nothing, so are the values. A scale below half precision's normal numbers may round down by more than
            // one step of 127.
            let step = scale > 0 ? min(max(x[index] / scale, -Self.largest), Self.largest) : 0
            steps.storeBytes(of: Int8(truncatingIfNeeded: nearest(step)), toByteOffset: index, as: Int8.self)
          }
          block += Self.blockBytes
        }
      }
    }
    return largestScale
  }
}

/// The nearest whole number, ties to the even one, of what is small: adding 1.5 · 2²³ leaves no room for a fraction.
@inline(__always)
private func nearest(_ value: Float) -> Int32 {
  Int32(bitPattern: (value + 0x1.8p23).bitPattern) &- Int32(bitPattern: Float(0x1.8p23).bitPattern)
}
