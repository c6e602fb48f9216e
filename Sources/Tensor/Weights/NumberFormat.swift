/// How numbers are stored in a file or in memory: each on its own, or in blocks whose values share something, such as a scale.
///
/// Each format has its own file in `Formats`. A new format needs such a file and an entry in `all`.
public struct NumberFormat: Sendable, Hashable, CustomStringConvertible {
  let coding: any NumberCoding.Type

  /// The format that a type implements.
  package init(_ coding: any NumberCoding.Type) { self.coding = coding }

  /// Every format that layers can compute with.
  public static let all: [NumberFormat] =
    [.float32, .float16, .bfloat16, .q8, .q4] + smallBlocks + superBlocks + smallFloats + convertedNumbers

  /// The format that has this name in files; nil if there is none.
  public init?(named name: String) {
    guard let known = Self.all.first(where: { $0.name == name }) else { return nil }
    self = known
  }

  /// The name in files: `F32`, `BF16`, `Q8_0`, …
  public var name: String { coding.name }
  /// How many values a block has; 1 if each value is stored on its own.
  public var blockValues: Int { coding.blockValues }
  /// How many bytes a block takes.
  public var blockBytes: Int { coding.blockBytes }
  /// The format of packed panels: this one, or a format that this one is converted to because no product takes this one.
  var packed: NumberFormat { coding.packedAs }
  /// Whether weights can be converted to this format.
  package var isWritable: Bool { coding is any WritableNumbers.Type }
  /// The format that `converted(to:)` gives to shapes that cannot be cut into blocks.
  package var ofSixteenBits: NumberFormat { self == .bfloat16 ? self : .float16 }

  /// The bytes of all elements of a tensor; nil if they do not fit in an `Int`, or if the shape cannot be cut into blocks.
  /// - Parameter order: of a kernel's values in blocks.
  public func bytes(of shape: Shape, order: BlockOrder = .product) -> Int? { BlockLayout(shape, self, order: order)?.bytes }

  public var description: String { name }
  public static func == (a: NumberFormat, b: NumberFormat) -> Bool { a.coding == b.coding || a.name == b.name }
  public func hash(into hasher: inout Hasher) { hasher.combine(name) }
}

/// How a number format reads bytes. Each call is for many blocks, never for a single value.
package protocol NumberCoding: Sendable {
  /// The name in files.
  static var name: String { get }
  /// How many values a block has; 1 if each value is stored on its own.
  static var blockValues: Int { get }
  /// How many bytes a block takes.
  static var blockBytes: Int { get }
  /// Decodes blocks, which may begin at any address.
  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>)
  /// False if a value of the blocks is infinite or not a number. The default implementation checks the decoded values.
  static func areFinite(_ blocks: Int, at source: UnsafeRawPointer) -> Bool
  /// A format of `PackedNumbers` that holds every finite value of this one. The default is float32.
  static var packedAs: NumberFormat { get }
}

/// A format that can also be written.
package protocol WritableNumbers: NumberCoding {
  /// Encodes values as blocks, each value rounded to the nearest. If the format has blocks, all values must be finite.
  /// - Parameter target: aligned for the elements if each value is stored on its own.
  /// - Returns: false if a finite value is larger than the format can hold.
  static func encode(_ blocks: Int, of values: UnsafePointer<Float>, into target: UnsafeMutableRawPointer) -> Bool
}

extension NumberCoding {
  package static var blockValues: Int { 1 }

  package static var packedAs: NumberFormat { .float32 }

  package static func areFinite(_ blocks: Int, at source: UnsafeRawPointer) -> Bool {
    let run = max(1, 4096 / blockValues)
    return withUnsafeTemporaryAllocation(of: Float.self, capacity: run * blockValues) { values in
      guard let first = values.baseAddress else { return true }
      return stride(from: 0, to: blocks, by: run).allSatisfy { begin in
        let count = min(run, blocks - begin)
        decode(count, from: source + begin * blockBytes, into: first)
        return values.prefix(count * blockValues).allSatisfy(\.isFinite)
      }
    }
  }
}

/// True if no exponent has all bits set. Infinities and NaNs have such exponents.
@inline(__always)
func exponentsLeaveRoom<Bits: FixedWidthInteger & UnsignedInteger>(
  _ count: Int, at source: UnsafeRawPointer, mask: Bits, stride: Int = MemoryLayout<Bits>.size
) -> Bool {
  // Adding one to such an exponent, and to no other, carries into the sign bit. There is no branch, so this runs as fast as memory.
  let one = mask & (0 &- mask)
  var carries: Bits = 0
  for index in 0..<count {
    carries |= (source.loadUnaligned(fromByteOffset: index * stride, as: Bits.self) & mask) &+ one
  }
  return carries & ~(Bits.max >> 1) == 0
}
