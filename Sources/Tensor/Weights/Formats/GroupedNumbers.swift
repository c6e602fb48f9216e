import CLatentDiffusionKernels

/// Blocks of whole numbers of up to 8 bits, in groups with a common scale and perhaps a minimum: a value is scale · (q - zero) + minimum.
///
/// The scale is d, or d times a factor of the group. The minimum is that of a second number and a second factor. All products are exact in float32, so a value
/// is rounded at most once.
protocol GroupedNumbers: PackedNumbers {
  /// How many values of a block have a common scale.
  static var groupValues: Int { get }
  /// The bits of q.
  static var bits: Int { get }
  /// The q that stands for the minimum.
  static var zero: Int { get }
  /// Where the block's d is, in half precision.
  static var scaleOffset: Int { get }
  /// Where the block's number for minima is, in half precision; nil if there are none.
  static var minimumOffset: Int? { get }
  /// Whether groups have factors of their own.
  static var hasFactors: Bool { get }
  /// Takes a block apart: all q, and, if groups have factors, those of d and then those of minima, for each group.
  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>)
}

extension GroupedNumbers {
  static var minimumOffset: Int? { nil }
  static var hasFactors: Bool { false }

  /// The groups of a block.
  static var groups: Int { blockValues / groupValues }
  /// Where the numbers in half precision are in a block.
  static var offsets: [Int] { [scaleOffset] + (minimumOffset.map { [$0] } ?? []) }
  /// The factors of a block.
  static var factorCount: Int { hasFactors ? groups * (minimumOffset == nil ? 1 : 2) : 0 }
  /// The bits of q beyond four.
  fileprivate static var planes: Int { max(0, bits - 4) }

  static func panels(channels: Int, taps: Int) -> any PanelForm.Type { GroupedPanels<Self>.self }
  static var packedBlockBytes: Int { blockValues * (4 + planes) / 8 + 2 * offsets.count + factorCount }

  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    let (groups, length, zero) = (groups, groupValues, zero)
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: blockValues) { numbers in
      withUnsafeTemporaryAllocation(of: Int8.self, capacity: max(1, factorCount)) { factors in
        guard let numbers = numbers.baseAddress, let factors = factors.baseAddress else { return }
        for index in 0..<blocks {
          let block = source + index * blockBytes
          open(block, numbers: numbers, factors: factors)
          for group in 0..<groups {
            let scale = half(block, scaleOffset) * (hasFactors ? Float(factors[group]) : 1)
            let minimum = minimumOffset.map { half(block, $0) * (hasFactors ? Float(factors[groups + group]) : 1) } ?? 0
            let target = values + index * blockValues + group * length, q = numbers + group * length
            for value in 0..<length { target[value] = scale * Float(Int(q[value]) - zero) + minimum }
          }
        }
      }
    }
  }

  @inline(__always)
  private static func half(_ block: UnsafeRawPointer, _ offset: Int) -> Float {
    HalfPrecision.widened(block.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// Only numbers in half precision can be infinite or not a number.
  static func areFinite(_ blocks: Int, at source: UnsafeRawPointer) -> Bool {
    offsets.allSatisfy { exponentsLeaveRoom(blocks, at: source + $0, mask: HalfPrecision.exponent, stride: blockBytes) }
  }
}

/// Panels of such blocks. They keep the bits and the scales of the file, and are widened at each use.
///
/// The parts of a panel follow one another, each for all 32 columns: four bits of q for each row, the bits above them, and then, block by block in the file's
/// order, the numbers in half precision and the factors.
enum GroupedPanels<Format: GroupedNumbers>: PanelForm {
  private static var width: Int { PackedMatrix.panelWidth }

  static func pack(_ rows: UnsafePointer<UnsafeRawPointer?>, channels: Int, taps: Int, into target: UnsafeMutableRawPointer) {
    let parts = Parts<Format>(UnsafeRawPointer(target), inputs: channels * taps), length = Format.blockValues, planes = Format.planes
    let low = UnsafeMutablePointer(mutating: parts.low), high = UnsafeMutablePointer(mutating: parts.high)
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: width * length) { numbers in
      guard let numbers = numbers.baseAddress else { return }
      for block in 0..<channels * taps / length {
        open(block, of: rows, numbers: numbers, into: parts)
        for value in 0..<length {
          let element = block * length + value, row = element % taps * channels + element / taps
          for column in 0..<width / 2 {
            let (left, right) = (numbers[column * length + value], numbers[(column + width / 2) * length + value])
            low[row * width / 2 + column] = left & 15 | right << 4
          }
          for plane in 0..<planes {
            var word: UInt32 = 0
            for column in 0..<width { word |= UInt32(numbers[column * length + value] >> UInt8(4 + plane) & 1) << UInt32(column) }
            high[row * planes + plane] = word
          }
        }
      }
    }
  }

  /// Takes a block of each column apart, and packs all but its q.
  private static func open(
    _ block: Int, of rows: UnsafePointer<UnsafeRawPointer?>, numbers: UnsafeMutablePointer<UInt8>, into parts: Parts<Format>
  ) {
    let offsets = Format.offsets, count = Format.factorCount
    let halves = UnsafeMutablePointer(mutating: parts.halves) + block * offsets.count * width
    let packed = UnsafeMutablePointer(mutating: parts.factors) + block * count * width
    withUnsafeTemporaryAllocation(of: Int8.self, capacity: max(1, count)) { factors in
      guard let factors = factors.baseAddress else { return }
      for column in 0..<width {
        let source = rows[column].map { $0 + block * Format.blockBytes }
        if let source {
          Format.open(source, numbers: numbers + column * Format.blockValues, factors: factors)
        } else {
          (numbers + column * Format.blockValues).update(repeating: 0, count: Format.blockValues)
          factors.update(repeating: 0, count: count)
        }
        for (index, offset) in offsets.enumerated() {
          halves[index * width + column] = source?.loadUnaligned(fromByteOffset: offset, as: UInt16.self) ?? 0
        }
        for index in 0..<count { packed[index * width + column] = factors[index] }
      }
    }
  }

  static func floats(_ rows: PanelRows, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    let parts = Parts<Format>(rows.panel, inputs: rows.inputs), channels = rows.inputs / rows.taps, planes = Format.planes
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * width) { numbers in
      guard let scales = numbers.baseAddress else { return }
      let minima = scales + width, hasMinima = Format.minimumOffset != nil
      minima.update(repeating: 0, count: width)
      var row = rows.rows.lowerBound
      while row < rows.rows.upperBound {
        // Rows are channels of a tap. Those of a group are as many as fit before its end in the file.
        let (tap, channel) = (row / channels, row % channels), group = (channel * rows.taps + tap) / Format.groupValues
        let end = ((group + 1) * Format.groupValues - tap + rows.taps - 1) / rows.taps
        let count = min(rows.rows.upperBound - row, min(end, channels) - channel)
        parts.widen(0, of: group, into: scales)
        if hasMinima { parts.widen(1, of: group, into: minima) }
        Kernels.active.widen_groups(
          count, parts.low + row * width / 2, parts.high + row * planes, Int32(planes), Int32(Format.zero), scales, minima,
          scratch + (row - rows.rows.lowerBound) * width)
        row += count
      }
    }
    return UnsafePointer(scratch)
  }
}

/// Where the parts of a panel are.
private struct Parts<Format: GroupedNumbers> {
  let low: UnsafePointer<UInt8>
  let high: UnsafePointer<UInt32>
  let halves: UnsafePointer<UInt16>
  let factors: UnsafePointer<Int8>

  init(_ panel: UnsafeRawPointer, inputs: Int) {
    let width = PackedMatrix.panelWidth, above = panel + inputs * width / 2, numbers = above + inputs * Format.planes * 4
    low = panel.assumingMemoryBound(to: UInt8.self)
    high = above.assumingMemoryBound(to: UInt32.self)
    halves = numbers.assumingMemoryBound(to: UInt16.self)
    factors = (numbers + inputs / Format.blockValues * Format.offsets.count * width * 2).assumingMemoryBound(to: Int8.self)
  }

  /// A group's scales (0) or minima (1), for all columns.
  func widen(_ index: Int, of group: Int, into target: UnsafeMutablePointer<Float>) {
    let width = PackedMatrix.panelWidth, groups = Format.groups, block = group / groups, count = Format.minimumOffset == nil ? 1 : 2
    Kernels.active.widen_f16(width, halves + (block * count + index) * width, target)
    guard Format.hasFactors else { return }
    let own = factors + (block * count * groups + index * groups + group % groups) * width
    for column in 0..<width { target[column] *= Float(own[column]) }
  }
}
