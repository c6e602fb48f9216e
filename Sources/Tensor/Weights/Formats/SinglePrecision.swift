import CLatentDiffusionKernels

extension NumberFormat {
  /// IEEE single precision.
  public static let float32 = NumberFormat(SinglePrecision.self)
}

/// IEEE single precision. Panels are used in place.
enum SinglePrecision: WritableNumbers, PackedNumbers, PanelForm {
  static var name: String { "F32" }
  static var blockBytes: Int { 4 }

  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    UnsafeMutableRawPointer(values).copyMemory(from: source, byteCount: blocks * 4)
  }

  static func encode(_ blocks: Int, of values: UnsafePointer<Float>, into target: UnsafeMutableRawPointer) -> Bool {
    target.copyMemory(from: values, byteCount: blocks * 4)
    return true
  }

  static func areFinite(_ blocks: Int, at source: UnsafeRawPointer) -> Bool {
    exponentsLeaveRoom(blocks, at: source, mask: 0x7F80_0000 as UInt32)
  }

  static func panels(channels: Int, taps: Int) -> any PanelForm.Type {
    channels > 0 && ProductFactors.split.takes(channels: channels) ? SplitPanels.self : Self.self
  }

  static var inPlace: ProductFactors? { .floats }

  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer) {
    ck_pack_panel(4, channels, taps, rows, target)
  }

  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> { rows.values(Float.self) }
}

/// float32 in two parts of 16 bits, as some processors multiply it. It takes no more memory, so weights are split when they are packed.
enum SplitPanels: PanelForm {
  static var inPlace: ProductFactors? { .split }

  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer) {
    SinglePrecision.pack(rows, channels: channels, taps: taps, into: target)
    let values = target.assumingMemoryBound(to: Float.self)
    ProductFactors.split.takePanel(k: channels * taps, values, into: values)
  }

  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    Kernels.active.join_panel(rows.count, rows.values(UInt32.self), scratch)
    return UnsafePointer(scratch)
  }

  static func words(_ rows: PanelRows, as factors: ProductFactors, into target: UnsafeMutablePointer<Float>) -> UnsafePointer<Float>? {
    factors == .split ? rows.values(Float.self) : nil
  }
}
