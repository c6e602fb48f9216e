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
