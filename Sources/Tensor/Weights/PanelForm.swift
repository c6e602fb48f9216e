import CLatentDiffusionKernels

/// The layout of a panel of 32 columns in memory, and how products read it. Each call is for a chunk of a panel, never for a value.
protocol PanelForm: Sendable {
  /// Packs a panel from 32 rows in a file's order, `[channels][taps]`. Missing rows become zeros.
  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer)
  /// Rows as floats, 32 in each, in place or in `scratch`.
  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float>

  /// The factors of products, if the processor has such products.
  static var factors: ProductFactors { get }
  /// The factors that the rows are stored as; nil if each use converts them.
  static var inPlace: ProductFactors? { get }
  /// Rows as factors, in place or in `target`; nil if the factors are made from the floats.
  static func words(_ rows: PanelRows, as factors: ProductFactors, into target: UnsafeMutablePointer<Float>) -> UnsafePointer<Float>?

  /// Whether the processor multiplies the rows as bytes, without widening them.
  static var hasIntegerProduct: Bool { get }
  /// Rows as bytes; nil if they are not bytes.
  static func bytes(_ rows: PanelRows) -> QuantizedPanel?
}

extension PanelForm {
  static var factors: ProductFactors { .split }
  static var inPlace: ProductFactors? { nil }
  static func words(_ rows: PanelRows, as factors: ProductFactors, into target: UnsafeMutablePointer<Float>) -> UnsafePointer<Float>? {
    nil
  }
  static var hasIntegerProduct: Bool { false }
  static func bytes(_ rows: PanelRows) -> QuantizedPanel? { nil }
}

/// A format that is packed into panels without a conversion.
protocol PackedNumbers: NumberCoding {
  /// The layout of panels for weights with this many channels, and this many taps of each one after the other in the file.
  static func panels(channels: Int, taps: Int) -> any PanelForm.Type
  /// The bytes of a block in a panel. The default is those in a file.
  static var packedBlockBytes: Int { get }
}

extension PackedNumbers {
  static var packedAs: NumberFormat { NumberFormat(Self.self) }
  static var packedBlockBytes: Int { blockBytes }
}

/// Some rows of a panel in memory.
struct PanelRows {
  /// Where the panel begins.
  let panel: UnsafeRawPointer
  /// Rows of the whole panel.
  let inputs: Int
  /// The taps of a channel that follow one another in the file.
  let taps: Int
  let rows: Range<Int>

  /// The number of values in these rows.
  var count: Int { rows.count * PackedMatrix.panelWidth }

  /// The first value, if values follow one another without gaps.
  func values<Value>(_ type: Value.Type) -> UnsafePointer<Value> {
    panel.assumingMemoryBound(to: type) + rows.lowerBound * PackedMatrix.panelWidth
  }
}

/// Rows of a panel of 8-bit weights, as the kernels take them.
struct QuantizedPanel {
  let values: UnsafePointer<UInt8>
  let scales: UnsafePointer<UInt16>
}
