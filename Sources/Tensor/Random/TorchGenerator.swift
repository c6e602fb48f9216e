import Foundation

/// PyTorch's generator on a CPU: `torch.Generator().manual_seed(seed)`.
///
/// Integers and uniforms are PyTorch's bit for bit. Normals are within 5e-7 of PyTorch's on x86-64 with AVX2. Without AVX2, PyTorch
/// rounds the angles differently, and its own normals differ from those by up to 2.4e-6. The generator is a value: a copy draws the
/// same numbers again.
///
/// Source: `at::CPUGeneratorImpl`, `at::normal_distribution` and `normal_fill` of PyTorch 2.13.
public struct TorchGenerator: Sendable, Codable {
  /// Values that one vectorised Box–Muller step fills: 8 radii and 8 angles.
  private static let blockSize = 16
  /// 2π to the nearest; `Float.pi` is rounded down.
  private static let turn = Float(2 * Double.pi)

  private var engine: MersenneTwister
  /// The second value of the last pair that was drawn one by one. Only draws of fewer than 16 normals use it.
  private var pendingNormal: Double?

  /// - Parameter seed: as for `manual_seed`; the Mersenne Twister takes its low 32 bits.
  public init(seed: UInt64) { engine = MersenneTwister(seed: UInt32(truncatingIfNeeded: seed)) }

  /// 32 random bits.
  public mutating func nextUInt32() -> UInt32 { engine.next() }

  /// `torch.randint(0, limit, (count,))`: whole numbers from 0 up to, not including, `limit`.
  /// - Precondition: the limit is above 0.
  public mutating func integers(_ count: Int, below limit: Int) -> [Int] {
    precondition(limit > 0, "There is no whole number from 0 to below \(limit).")
    let limit = UInt64(limit)
    return (0..<count).map { _ in Int((limit < Self.wideLimit ? UInt64(engine.next()) : nextUInt64()) % limit) }
  }

  /// `torch.randperm(count)`: the numbers from 0 to below `count` in a random order.
  public mutating func permutation(_ count: Int) -> [Int] {
    var order = Array(0..<max(0, count))
    for index in order.indices.dropLast() { order.swapAt(index, index + Int(engine.next()) % (order.count - index)) }
    return order
  }

  /// The limit from which PyTorch takes 64 random bits for a whole number.
  private static let wideLimit: UInt64 = 1 << 28

  /// `torch.rand(count)`: multiples of 2⁻²⁴ in 0..<1.
  public mutating func uniform(_ count: Int) -> [Float] {
    var values = [Float](repeating: 0, count: count)
    fillUniform(&values, 0..<count)
    return values
  }

  /// `torch.randn(count)`.
  ///
  /// As in PyTorch, the numbers depend on the calls: draws of 20 and of 12 are not one draw of 32.
  public mutating func normal(_ count: Int) -> [Float] {
    guard count >= Self.blockSize else { return (0..<count).map { _ in Float(nextNormal()) } }
    var values = uniform(count)
    for start in stride(from: 0, through: count - Self.blockSize, by: Self.blockSize) { Self.boxMuller(&values, at: start) }
    if !count.isMultiple(of: Self.blockSize) {
      // The rest is shorter than a vector, so the last 16 values are drawn again.
      fillUniform(&values, count - Self.blockSize..<count)
      Self.boxMuller(&values, at: count - Self.blockSize)
    }
    return values
  }

  private mutating func fillUniform(_ values: inout [Float], _ range: Range<Int>) {
    for index in range { values[index] = Float(engine.next() & 0xff_ffff) * 0x1p-24 }
  }

  /// Turns 16 uniforms into 16 normals: u₁ in the first half gives radii √(-2 ln(1 - u₁)), u₂ in the second the angles 2π·u₂.
  private static func boxMuller(_ values: inout [Float], at start: Int) {
    for first in start..<start + blockSize / 2 {
      let second = first + blockSize / 2
      let radius = (-2 * log(1 - values[first])).squareRoot()
      let angle = turn * values[second]
      values[first] = radius * cos(angle)
      values[second] = radius * sin(angle)
    }
  }

  /// One normal of a pair drawn in double precision; the other one is kept for the next call.
  private mutating func nextNormal() -> Double {
    if let pending = pendingNormal {
      pendingNormal = nil
      return pending
    }
    let angle = 2 * Double.pi * nextUniform()
    let radius = (-2 * log1p(-nextUniform())).squareRoot()
    pendingNormal = radius * sin(angle)
    return radius * cos(angle)
  }

  /// 64 random bits, the upper half drawn first.
  private mutating func nextUInt64() -> UInt64 {
    let upper = UInt64(engine.next())
    return upper << 32 | UInt64(engine.next())
  }

  /// 53 random bits as a number in 0..<1.
  private mutating func nextUniform() -> Double {
    Double(nextUInt64() & 0x1f_ffff_ffff_ffff) * 0x1p-53
  }
}
