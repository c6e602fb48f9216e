import CLatentDiffusionKernels

extension NumberFormat {
  /// 8 bits, in blocks of 32 values with a common scale. A block has 34 bytes: a scale d in half precision, then 32 signed bytes q. A value is d · q. Source:
  /// GGUF's `Q8_0`.
  public static let q8 = NumberFormat(QuantizedBlocks.self)
}

/// Blocks of 32 values of 8 bits with a common scale. If the processor has an instruction for it, panels are multiplied without widening, with activations of
/// 8 bits. Otherwise they are widened.
enum QuantizedBlocks: WritableNumbers, GroupedNumbers, PanelForm {
  static var name: String { "Q8_0" }
  static var blockValues: Int { Int(CK_BLOCK) }
  /// The scale and the values.
  static var blockBytes: Int { 2 + blockValues }
  /// q lies between this and its negative, so that both signs have the same steps.
  private static var largest: Float { 127 }

  static var groupValues: Int { blockValues }
  static var bits: Int { 8 }
  static var zero: Int { 128 }
  static var scaleOffset: Int { 0 }

  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>) {
    for index in 0..<blockValues { numbers[index] = block.load(fromByteOffset: 2 + index, as: UInt8.self) ^ 0x80 }
  }

  /// d = max |x| / 127 in half precision, q = x / d to the nearest whole number.
  static func encode(_ blocks: Int, of values: UnsafePointer<Float>, into target: UnsafeMutableRawPointer) -> Bool {
    var fits = true
    for index in 0..<blocks {
      let x = values + index * blockValues, block = target + index * blockBytes
      // Without the sign, the bits of floats have the same order as their magnitudes.
      var most: UInt32 = 0
      for index in 0..<blockValues { most = max(most, x[index].bitPattern & 0x7FFF_FFFF) }
      let bits = HalfPrecision.rounded(Float(bitPattern: most) / largest)
      if bits >= HalfPrecision.exponent { fits = false }
      block.storeBytes(of: bits, as: UInt16.self)
      let scale = HalfPrecision.widened(bits)
      for index in 0..<blockValues {
        // If the scale is zero, so are the values. A subnormal scale may be rounded down by more than one part in 127, so the step is clamped.
        let step = scale > 0 ? min(max(x[index] / scale, -largest), largest) : 0
        block.storeBytes(of: Int8(truncatingIfNeeded: nearest(step)), toByteOffset: 2 + index, as: Int8.self)
      }
    }
    return fits
  }

  /// The nearest whole number to a small value, ties to even. Adding 1.5 · 2²³ leaves no bits for a fraction.
  @inline(__always)
  private static func nearest(_ value: Float) -> Int32 {
    Int32(bitPattern: (value + 0x1.8p23).bitPattern) &- Int32(bitPattern: Float(0x1.8p23).bitPattern)
  }

  static func panels(channels: Int, taps: Int) -> any PanelForm.Type { taps == 1 ? Self.self : GroupedPanels<Self>.self }

  /// Packs blocks from a file into a panel for the kernel: four inputs of each output together, 128 added, then the scales.
  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer) {
    let width = PackedMatrix.panelWidth, inputs = channels * taps
    let values = target.assumingMemoryBound(to: UInt8.self)
    let scales = (target + inputs * width).assumingMemoryBound(to: UInt16.self)
    for column in 0..<width {
      for index in 0..<inputs / blockValues {
        let place = rows[column].map { $0 + index * blockBytes }
        scales[index * width + column] = place?.loadUnaligned(as: UInt16.self) ?? 0
        for value in 0..<blockValues {
          let q = place?.load(fromByteOffset: 2 + value, as: Int8.self) ?? 0
          let k = index * blockValues + value
          values[(k / 4 * width + column) * 4 + k % 4] = UInt8(bitPattern: q) ^ 0x80
        }
      }
    }
  }

  /// These weights are less exact than bfloat16, so both factors are bfloat16 if the processor multiplies pairs of it.
  static var factors: ProductFactors { .pairs }
  static var hasIntegerProduct: Bool { Kernels.active.gemm_panel_q8 != nil }

  private static func panel(_ rows: PanelRows) -> QuantizedPanel {
    precondition(rows.rows.lowerBound % blockValues == 0, "Blocks are used whole.")
    let width = PackedMatrix.panelWidth
    return QuantizedPanel(
      values: rows.values(UInt8.self),
      scales: (rows.panel + rows.inputs * width).assumingMemoryBound(to: UInt16.self) + rows.rows.lowerBound / blockValues * width)
  }

  static func bytes(_ rows: PanelRows) -> QuantizedPanel? { panel(rows) }

  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    let panel = panel(rows)
    Kernels.active.widen_q8(rows.rows.count, panel.values, panel.scales, scratch)
    return UnsafePointer(scratch)
  }

  static func words(_ rows: PanelRows, as factors: ProductFactors, into target: UnsafeMutablePointer<Float>) -> UnsafePointer<Float>? {
    guard factors == .pairs else { return nil }
    let panel = panel(rows)
    Kernels.active.narrow_q8(rows.rows.count, panel.values, panel.scales, target.words)
    return UnsafePointer(target)
  }
}
