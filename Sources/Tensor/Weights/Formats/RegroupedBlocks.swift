import Foundation

/// The groups of a format's blocks, each with a block of its own: for tensors whose rows end within a block. They are made in memory and are in no file.
///
/// A block has the numbers in half precision, the group's factors, and a byte for each q.
private enum RegroupedBlocks<Format: GroupedNumbers>: GroupedNumbers {
  static var name: String { "\(Format.name)/\(groupValues)" }
  static var blockValues: Int { Format.groupValues }
  static var groupValues: Int { Format.groupValues }
  static var bits: Int { Format.bits }
  static var zero: Int { Format.zero }
  static var scaleOffset: Int { 0 }
  static var minimumOffset: Int? { Format.minimumOffset.map { _ in 2 } }
  static var hasFactors: Bool { Format.hasFactors }
  private static var factorsOffset: Int { 2 * offsets.count }
  static var blockBytes: Int { factorsOffset + factorCount + blockValues }

  static func open(_ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>) {
    let own = block + factorsOffset
    for index in 0..<factorCount { factors[index] = own.load(fromByteOffset: index, as: Int8.self) }
    UnsafeMutableRawPointer(numbers).copyMemory(from: own + factorCount, byteCount: blockValues)
  }

  /// Cuts a block of the format into blocks of its groups.
  static func cut(
    _ block: UnsafeRawPointer, numbers: UnsafeMutablePointer<UInt8>, factors: UnsafeMutablePointer<Int8>,
    into target: UnsafeMutableRawPointer
  ) {
    Format.open(block, numbers: numbers, factors: factors)
    for group in 0..<Format.groups {
      let place = target + group * blockBytes, own = place + factorsOffset
      for (index, offset) in Format.offsets.enumerated() { (place + 2 * index).copyMemory(from: block + offset, byteCount: 2) }
      for index in 0..<factorCount { own.storeBytes(of: factors[index * Format.groups + group], toByteOffset: index, as: Int8.self) }
      (own + factorCount).copyMemory(from: numbers + group * blockValues, byteCount: blockValues)
    }
  }
}

extension GroupedNumbers {
  fileprivate static var regrouped: NumberFormat? { groups > 1 ? NumberFormat(RegroupedBlocks<Self>.self) : nil }

  fileprivate static func regroup(_ blocks: Int, from source: UnsafeRawPointer, into target: UnsafeMutableRawPointer) {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: blockValues) { numbers in
      withUnsafeTemporaryAllocation(of: Int8.self, capacity: max(1, factorCount)) { factors in
        guard let numbers = numbers.baseAddress, let factors = factors.baseAddress else { return }
        for block in 0..<blocks {
          let place = target + block * groups * RegroupedBlocks<Self>.blockBytes
          RegroupedBlocks<Self>.cut(source + block * blockBytes, numbers: numbers, factors: factors, into: place)
        }
      }
    }
  }
}

extension NumberFormat {
  /// The format of a block's groups as blocks; nil if a block is one group.
  package var regrouped: NumberFormat? { (coding as? any GroupedNumbers.Type)?.regrouped }
}

extension WeightTensor {
  /// A tensor of blocks that reach from one row into the next, in the same groups with blocks of their own.
  ///
  /// - Returns: nil if groups reach across rows, too, or if there are not as many blocks as the shape says.
  package init?(regrouping data: Data, from format: NumberFormat, shape: Shape, order: BlockOrder) {
    guard let coding = format.coding as? any GroupedNumbers.Type, let small = coding.regrouped,
      let bytes = small.bytes(of: shape, order: order),
      shape.count % format.blockValues == 0, data.count % format.blockBytes == 0,
      data.count / format.blockBytes == shape.count / format.blockValues
    else { return nil }
    var cut = Data(count: bytes)
    cut.withUnsafeMutableBytes { target in
      data.withUnsafeBytes { source in
        guard let target = target.baseAddress, let source = source.baseAddress else { return }
        coding.regroup(shape.count / format.blockValues, from: source, into: target)
      }
    }
    self.init(shape: shape, elementType: small, data: cut, order: order)
  }
}
