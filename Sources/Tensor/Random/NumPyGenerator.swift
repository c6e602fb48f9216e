import Foundation

/// NumPy's legacy generator: `numpy.random.RandomState(seed)`, and `numpy.random.seed(seed)` with the functions of the module.
///
/// Integers and uniforms are NumPy's bit for bit, normals within rounding. It is a value: a copy draws the same numbers again.
///
/// Source: `RandomState`, `legacy_gauss` and `mt19937_next_double` of NumPy 2.
public struct NumPyGenerator: Sendable, Codable {
  private var engine: MersenneTwister
  /// The second value of the last pair, which is the next normal.
  private var pendingNormal: Double?

  /// - Parameter seed: any integer that `RandomState` takes.
  public init(seed: UInt32) { engine = MersenneTwister(seed: seed) }

  /// 32 random bits.
  public mutating func nextUInt32() -> UInt32 { engine.next() }

  /// `random_sample(count)`: multiples of 2⁻⁵³ in 0..<1.
  public mutating func uniform(_ count: Int) -> [Double] { (0..<count).map { _ in nextUniform() } }

  /// `randn(count)`, rounded to single precision. Drawing in several calls gives the same numbers as drawing in one.
  public mutating func normal(_ count: Int) -> [Float] { (0..<count).map { _ in Float(nextNormal()) } }

  private mutating func nextUniform() -> Double {
    let upper = UInt64(engine.next() >> 5)
    return Double(upper << 26 | UInt64(engine.next() >> 6)) * 0x1p-53
  }

  /// Marsaglia's polar method: a point in the unit disc, other than its centre, becomes two normals. The second is returned first.
  private mutating func nextNormal() -> Double {
    if let pending = pendingNormal {
      pendingNormal = nil
      return pending
    }
    while true {
      let x = 2 * nextUniform() - 1
      let y = 2 * nextUniform() - 1
      let square = x * x + y * y
      guard square < 1, square != 0 else { continue }
      let scale = (-2 * log(square) / square).squareRoot()
      pendingNormal = scale * x
      return scale * y
    }
  }
}
