import CLatentDiffusionKernels

/// A floating-point format of 16 bits, made of float32 by rounding to the nearest, ties to even.
///
/// Rounding uses integers and no branches, so that the compiler vectorises its loops. Swift has no `Float16` on Intel Macs.
protocol SixteenBits: WritableNumbers, PackedNumbers, PanelForm {
  /// The bits of the exponent.
  static var exponent: UInt16 { get }
  /// The bits of the smallest positive float32 that becomes infinite.
  static var overflow: UInt32 { get }
  static func rounded(_ value: Float) -> UInt16
  /// Widens values with vector instructions.
  static func widen(_ count: Int, _ bits: UnsafePointer<UInt16>, into values: UnsafeMutablePointer<Float>)
}

extension SixteenBits {
  static var blockBytes: Int { 2 }

  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    // Bytes in a file may not be aligned for their elements, so they are copied to a buffer that is.
    withUnsafeTemporaryAllocation(of: UInt16.self, capacity: blocks) { aligned in
      guard let aligned = aligned.baseAddress else { return }
      UnsafeMutableRawPointer(aligned).copyMemory(from: source, byteCount: blocks * 2)
      widen(blocks, aligned, into: values)
    }
  }

  static func encode(_ blocks: Int, of values: UnsafePointer<Float>, into target: UnsafeMutableRawPointer) -> Bool {
    let bits = target.assumingMemoryBound(to: UInt16.self)
    var largest: UInt32 = 0
    for index in 0..<blocks {
      bits[index] = rounded(values[index])
      let size = values[index].bitPattern & 0x7FFF_FFFF
      largest = max(largest, size < 0x7F80_0000 ? size : 0)
    }
    return largest < overflow
  }

  static func areFinite(_ blocks: Int, at source: UnsafeRawPointer) -> Bool { exponentsLeaveRoom(blocks, at: source, mask: exponent) }

  static func panels(channels: Int, taps: Int) -> any PanelForm.Type { Self.self }

  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer) {
    ck_pack_panel(2, channels, taps, rows, target)
  }

  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    widen(rows.count, rows.values(UInt16.self), into: scratch)
    return UnsafePointer(scratch)
  }
}
