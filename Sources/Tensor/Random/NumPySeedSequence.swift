/// NumPy's way from one seed and a place in a tree to seeds that have nothing in common: `numpy.random.SeedSequence`.
///
/// Source: `SeedSequence` of NumPy 2, after O'Neill, "Developing a seed_seq alternative", 2015. Words are NumPy's bit for bit.
public struct NumPySeedSequence: Sendable {
  private var pool: [UInt32]

  /// - Parameters:
  ///   - entropy: the seed.
  ///   - spawnKey: the place in the tree, each number below 2⁶⁴.
  ///   - poolSize: how many words are mixed, at least 4, which is NumPy's default.
  /// - Precondition: the pool has at least 4 words.
  public init(entropy: UInt64, spawnKey: [UInt64] = [], poolSize: Int = 4) {
    precondition(poolSize >= 4, "A pool of \(poolSize) words is smaller than NumPy's smallest, 4.")
    var words = Self.words(entropy)
    if !spawnKey.isEmpty { words += Array(repeating: 0, count: poolSize - words.count) + spawnKey.flatMap(Self.words) }
    var constant: UInt32 = 0x43b0_d7e5
    func hash(_ word: UInt32) -> UInt32 {
      let value = word ^ constant
      constant &*= 0x931e_8875
      let product = value &* constant
      return product ^ product >> 16
    }
    func mix(_ first: UInt32, _ second: UInt32) -> UInt32 {
      let difference = 0xca01_f9dd &* first &- 0x4973_f715 &* second
      return difference ^ difference >> 16
    }
    var mixed = (0..<poolSize).map { hash($0 < words.count ? words[$0] : 0) }
    for source in mixed.indices {
      for target in mixed.indices where target != source { mixed[target] = mix(mixed[target], hash(mixed[source])) }
    }
    for word in words.dropFirst(poolSize) {
      for target in mixed.indices { mixed[target] = mix(mixed[target], hash(word)) }
    }
    pool = mixed
  }

  /// `generate_state(count)`: as many words of 32 bits.
  public func state(_ count: Int) -> [UInt32] {
    var constant: UInt32 = 0x8b51_f9dd
    return (0..<count).map { index in
      let value = pool[index % pool.count] ^ constant
      constant &*= 0x58f3_8ded
      let product = value &* constant
      return product ^ product >> 16
    }
  }

  /// A number's words, the lowest first, without zeros at the top.
  private static func words(_ number: UInt64) -> [UInt32] {
    let upper = UInt32(number >> 32)
    return [UInt32(truncatingIfNeeded: number)] + (upper == 0 ? [] : [upper])
  }
}
