import LatentDiffusionTestSupport
import Tensor
import Testing

/// Against PyTorch 2.13.0 on an x86-64 processor with AVX2.
@Suite struct TorchGeneratorTests {
  @Test(.compares("PyTorch's CPU generator, normal numbers", in: .operations, with: "torch", unit: .absolute)) func drawsWhatPyTorchDraws()
    throws
  {
    var largest: Float = 0
    for item in try GeneratorFixture(named: "torch").cases {
      var generator = TorchGenerator(seed: item.seed)
      for (index, draw) in item.draws.enumerated() {
        let label = "seed \(item.seed), draw \(index)"
        switch draw.kind {
        case .integers: try draw.expectEqual((0..<draw.count).map { _ in generator.nextUInt32() }, label)
        case .uniform: try draw.expectEqual(generator.uniform(draw.count).map(\.bitPattern), label)
        case .normal: largest = max(largest, try draw.expectClose(generator.normal(draw.count), label))
        }
      }
    }
    print("TorchGenerator: normals differ by at most \(largest)")
  }

  /// The 10,000th output for the seed 5489 is fixed by the C++ standard ([rand.predef], `mt19937`).
  @Test func integersAreThoseOfTheStandard() {
    var generator = TorchGenerator(seed: 5489)
    for _ in 1..<10000 { _ = generator.nextUInt32() }
    #expect(generator.nextUInt32() == 4_123_659_995)
  }

  @Test func aCopyDrawsTheSameAgain() {
    var generator = TorchGenerator(seed: 3)
    _ = generator.normal(5)
    var copy = generator
    let first = generator.normal(20)
    #expect(first == copy.normal(20))
    #expect(generator.normal(20) != first)
  }

  @Test func onlyTheLow32BitsOfASeedCount() {
    var (low, high) = (TorchGenerator(seed: 9), TorchGenerator(seed: 9 + 5 << 32))
    #expect(low.uniform(100) == high.uniform(100))
  }
}
