import CLatentDiffusionKernels

/// How a panel of 32 columns lies in memory, and what products take of it. All of it is asked about a panel's chunk, never about a value.
protocol PanelForm: Sendable {
  /// A panel out of 32 rows as they stand in a file, `[channels][taps]` or in blocks; rows that are not there are zeros.
  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer)
  /// The floats of some rows, 32 in each: in place, or in `scratch`.
  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float>

  /// What products are made of, where the processor has those.
  static var factors: ProductFactors { get }
  /// The factors as which the rows stand in memory; nil where each use makes them.
  static var inPlace: ProductFactors? { get }
  /// Some rows as factors, in place or in `target`; nil where those are made of the floats.
  static func words(_ rows: PanelRows, as factors: ProductFactors, into target: UnsafeMutablePointer<Float>) -> UnsafePointer<Float>?

  /// Whether the processor multiplies the rows as the bytes that they are.
  static var hasIntegerProduct: Bool { get }
  /// Some rows as bytes; nil where they are none.
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

/// Numbers that panels are packed of as they are.
protocol PackedNumbers: NumberCoding {
  /// How panels lie in memory whose weights have so many channels.
  static func panels(channels: Int) -> any PanelForm.Type
}

extension PackedNumbers {
  static var packedAs: NumberFormat { NumberFormat(Self.self) }
}

/// Some rows of a panel in memory.
struct PanelRows {
  /// Where the panel begins.
  let panel: UnsafeRawPointer
  /// Rows of the whole panel.
  let inputs: Int
  let rows: Range<Int>

  /// How many values they have.
  var count: Int { rows.count * PackedMatrix.panelWidth }

  /// Where they begin, where a value follows the other.
  func values<Value>(_ type: Value.Type) -> UnsafePointer<Value> {
    panel.assumingMemoryBound(to: type) + rows.lowerBound * PackedMatrix.panelWidth
  }
}

/// Rows of a panel of 8-bit weights, as the kernels take them.
struct QuantizedPanel {
  let values: UnsafePointer<UInt8>
  let scales: UnsafePointer<UInt16>
}
