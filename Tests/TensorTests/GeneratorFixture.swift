import Foundation
import LatentDiffusionTestSupport
import Testing

/// What an original generator drew: `Tests/Fixtures/random/make_random.py` says how it is stored.
struct GeneratorFixture: Decodable {
  struct Case: Decodable {
    let seed: UInt64
    let residentThreads: Int?
    let draws: [Draw]
  }

  enum Kind: String, Decodable { case integers, uniform, normal }

  struct Draw: Decodable {
    let kind: Kind
    let count: Int
    let at: [Int]?
    let bits: [UInt64]
    let checksum: UInt64?
    let weightedSum: Double?

    private var places: [Int] { at ?? Array(0..<count) }
  }

  let cases: [Case]

  init(named name: String) throws {
    self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: fixtures.appending(path: "random/\(name).json")))
    #expect(!cases.isEmpty)
  }
}

extension GeneratorFixture.Draw {
  /// Every bit is the original's; `bits` are the bit patterns of all values drawn.
  func expectEqual(_ drawn: [some FixedWidthInteger & UnsignedInteger], _ label: String) throws {
    try #require(drawn.count == count && places.count == bits.count, "\(label): \(drawn.count) values for \(count)")
    let wrong = zip(places, bits).first { place, bits in UInt64(drawn[place]) != bits }
    #expect(wrong == nil, "\(label): \(kind) of \(count), first difference at \(wrong?.0 ?? 0)")
    let sum = drawn.enumerated().reduce(UInt64(0)) { sum, item in sum &+ UInt64(item.element) &* UInt64(2 * item.offset + 1) }
    #expect(sum == checksum, "\(label): \(kind) of \(count), the checksum differs")
  }

  /// No value is further than 1e-6 from the original's. Returns the largest difference.
  @discardableResult func expectClose(_ drawn: [Float], _ label: String) throws -> Float {
    try #require(drawn.count == count && places.count == bits.count, "\(label): \(drawn.count) values for \(count)")
    let differences = zip(places, bits).map { place, bits in
      (difference: abs(drawn[place] - Float(bitPattern: UInt32(bits))), place: place)
    }
    let largest = differences.max { $0.difference < $1.difference } ?? (0, 0)
    expect(error: largest.difference, atMost: 1e-6, "\(label): normal of \(count), off at \(largest.place)")
    let weights = drawn.indices.map { Double($0 % 7 + 1) }
    let sum = zip(drawn, weights).reduce(0) { $0 + Double($1.0) * $1.1 }
    let expected = try #require(weightedSum)
    #expect(abs(sum - expected) <= 1e-6 * weights.reduce(0, +), "\(label): normal of \(count), sum \(sum) for \(expected)")
    return largest.difference
  }
}
