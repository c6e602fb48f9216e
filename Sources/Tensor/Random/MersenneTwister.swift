/// The stream of 32-bit integers behind PyTorch's CPU generator and NumPy's `RandomState`: MT19937.
///
/// Source: Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform pseudo-random number
/// generator", 1998, seeded as in their version of 2002.
struct MersenneTwister: Sendable, Codable {
  private static let size = 624
  private static let shift = 397

  private var state: [UInt32]
  private var position = size

  init(seed: UInt32) {
    state = [seed]
    state.reserveCapacity(Self.size)
    for index in 1..<UInt32(Self.size) {
      let last = state[state.count - 1]
      state.append(1_812_433_253 &* (last ^ (last >> 30)) &+ index)
    }
  }

  /// - Throws: `DecodingError.dataCorrupted` where the state has another size, or the position lies outside.
  init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    state = try values.decode([UInt32].self, forKey: .state)
    position = try values.decode(Int.self, forKey: .position)
    guard state.count == Self.size, 0...Self.size ~= position else {
      throw DecodingError.dataCorruptedError(
        forKey: .position, in: values, debugDescription: "Word \(position) of \(state.count) is no place in a Mersenne Twister.")
    }
  }

  mutating func next() -> UInt32 {
    if position == Self.size { twist() }
    var word = state[position]
    position += 1
    word ^= word >> 11
    word ^= (word << 7) & 0x9d2c_5680
    word ^= (word << 15) & 0xefc6_0000
    return word ^ (word >> 18)
  }

  /// The next 624 words of the state: each from the upper bit of one word, the lower bits of the next and a word 397 further on.
  private mutating func twist() {
    state.withUnsafeMutableBufferPointer { words in
      func renew(_ index: Int, next: Int, far: Int) {
        let joined = (words[index] & 0x8000_0000) | (words[next] & 0x7fff_ffff)
        words[index] = words[far] ^ (joined >> 1) ^ (joined & 1 == 0 ? 0 : 0x9908_b0df)
      }
      let (size, shift) = (Self.size, Self.shift)
      for index in 0..<size - shift { renew(index, next: index + 1, far: index + shift) }
      for index in size - shift..<size - 1 { renew(index, next: index + 1, far: index + shift - size) }
      renew(size - 1, next: 0, far: shift - 1)
    }
    position = 0
  }
}
