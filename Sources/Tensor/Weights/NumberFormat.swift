/// How numbers stand in a file or in memory: each for itself, or in blocks whose values have something in common, such as a scale.
///
/// What a format does is written in a file of its own in `Formats`. A new one is such a file and an entry of `all`.
public struct NumberFormat: Sendable, Hashable, CustomStringConvertible {
  let coding: any NumberCoding.Type

  /// A format that does what a type says.
  package init(_ coding: any NumberCoding.Type) { self.coding = coding }

  /// Every format that layers can compute with.
  public static let all: [NumberFormat] = [.float32, .float16, .bfloat16, .q8] + smallFloats + convertedNumbers

  /// The format that files call so; nil where there is none.
  public init?(named name: String) {
    guard let known = Self.all.first(where: { $0.name == name }) else { return nil }
    self = known
  }

  /// What files call it: `F32`, `BF16`, `Q8_0`, …
  public var name: String { coding.name }
  /// How many values a block has; 1 where each value stands for itself.
  public var blockValues: Int { coding.blockValues }
  /// How many bytes a block takes.
  public var blockBytes: Int { coding.blockBytes }
  /// The format of packed panels: this one, or the one that they are made of for lack of products with this one.
  var packed: NumberFormat { coding.packedAs }
  /// The format that `converted(to:)` gives to shapes that have no blocks.
  package var ofSixteenBits: NumberFormat { self == .bfloat16 ? self : .float16 }

  /// Of all elements of a tensor; nil where they are more than can be counted, or where the shape cannot be cut into blocks.
  public func bytes(of shape: Shape) -> Int? { BlockLayout(shape, self)?.bytes }

  public var description: String { name }
  public static func == (a: NumberFormat, b: NumberFormat) -> Bool { a.coding == b.coding || a.name == b.name }
  public func hash(into hasher: inout Hasher) { hasher.combine(name) }
}

/// What a number format does with bytes. It is asked about many blocks at once, never about a single value.
package protocol NumberCoding: Sendable {
  /// What files call it.
  static var name: String { get }
  /// How many values a block has; 1 where each value stands for itself.
  static var blockValues: Int { get }
  /// How many bytes a block takes.
  static var blockBytes: Int { get }
  /// The values of some blocks, which may begin at any address.
  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>)
  /// False where a value of some blocks is infinite or not a number. Without an implementation, the decoded values are looked at.
  static func areFinite(_ blocks: Int, at source: UnsafeRawPointer) -> Bool
  /// A format of `PackedNumbers` that holds every finite value of this one. Without an implementation, it is float32.
  static var packedAs: NumberFormat { get }
}

/// A format that numbers can also be written in.
package protocol WritableNumbers: NumberCoding {
  /// Blocks of values, each rounded to the nearest. In formats of blocks all values are finite.
  /// - Parameter target: aligned for the elements, where each stands for itself.
  /// - Returns: false where a finite value is larger than the format can hold.
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

/// True where no exponent has all its bits set, as those of infinities and NaNs have.
@inline(__always)
func exponentsLeaveRoom<Bits: FixedWidthInteger & UnsignedInteger>(
  _ count: Int, at source: UnsafeRawPointer, mask: Bits, stride: Int = MemoryLayout<Bits>.size
) -> Bool {
  // Such an exponent, and only such a one, carries into the sign's place when one is added. No branch: this runs as fast as memory.
  let one = mask & (0 &- mask)
  var carries: Bits = 0
  for index in 0..<count {
    carries |= (source.loadUnaligned(fromByteOffset: index * stride, as: Bits.self) & mask) &+ one
  }
  return carries & ~(Bits.max >> 1) == 0
}
