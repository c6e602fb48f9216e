import LatentDiffusionTestSupport
import Tensor
import Testing

/// Against NumPy 2.4.6.
@Suite struct NumPyGeneratorTests {
  @Test(.compares("NumPy's generator, normal numbers", in: .operations, with: "numpy", unit: .absolute)) func drawsWhatNumPyDraws() throws {
    var largest: Float = 0
    for item in try GeneratorFixture(named: "numpy").cases {
      var generator = NumPyGenerator(seed: try #require(UInt32(exactly: item.seed)))
      for (index, draw) in item.draws.enumerated() {
        let label = "seed \(item.seed), draw \(index)"
        switch draw.kind {
        case .integers: try draw.expectEqual((0..<draw.count).map { _ in generator.nextUInt32() }, label)
        case .uniform: try draw.expectEqual(generator.uniform(draw.count).map(\.bitPattern), label)
        case .normal: largest = max(largest, try draw.expectClose(generator.normal(draw.count), label))
        }
      }
    }
    print("NumPyGenerator: normals differ by at most \(largest)")
  }

  @Test func severalDrawsAreOne() {
    var (whole, parts) = (NumPyGenerator(seed: 12), NumPyGenerator(seed: 12))
    #expect(whole.normal(51) == [3, 0, 17, 31].flatMap { parts.normal($0) })
  }
}

/// `numpy.random.SeedSequence(entropy=…, spawn_key=…, pool_size=…).generate_state(5)` of NumPy 2.4.6.
@Suite struct NumPySeedSequenceTests {
  struct Case: Sendable {
    let entropy: UInt64
    var spawnKey: [UInt64] = []
    var poolSize = 24
    let state: [UInt32]
  }

  static let cases = [
    Case(entropy: 0, poolSize: 4, state: [2_968_811_710, 3_677_149_159, 745_650_761, 2_884_920_346, 2_642_120_001]),
    Case(entropy: 1, spawnKey: [0, 0], state: [182_647_522, 2_616_322_182, 3_015_489_495, 69_013_646, 2_562_043_078]),
    Case(
      entropy: (1 << 40) + 3, spawnKey: [5, 3], state: [3_262_805_002, 3_352_222_441, 534_787_907, 1_409_252_514, 3_418_195_666]),
    Case(
      entropy: (1 << 63) - 2, spawnKey: [(1 << 40) + 1, 41], state: [3_877_269_932, 1_817_450_758, 693_389_976, 371_737_469, 1_212_345_901]),
    Case(entropy: 7, state: [1_376_543_887, 623_213_690, 436_845_524, 1_186_459_840, 374_999_794]),
  ]

  @Test(arguments: cases) func spawnsWhatNumPySpawns(_ item: Case) {
    #expect(NumPySeedSequence(entropy: item.entropy, spawnKey: item.spawnKey, poolSize: item.poolSize).state(5) == item.state)
  }
}
