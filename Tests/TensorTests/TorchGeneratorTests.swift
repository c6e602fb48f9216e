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

  /// `torch.randint(0, limit, (3,), generator=torch.Generator().manual_seed(3))`: from 2^28 on PyTorch takes 64 bits for a number.
  @Test(arguments: [
    (1 << 40, [455_570_294_424, 1_073_054_410_371, 790_795_084_744]), (1 << 28, [35_325_592, 117_892_739, 252_666_824]),
    ((1 << 28) - 1, [218_175_346, 35_325_593, 88_681_732]), (1, [0, 0, 0]),
  ]) func wholeNumbersAreThoseOfPyTorch(limit: Int, expected: [Int]) {
    var generator = TorchGenerator(seed: 3)
    #expect(generator.integers(3, below: limit) == expected)
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

  /// `torch.randperm` of 10, 5 and 1 with seed 7; normal numbers between them.
  @Test func permutations() {
    var generator = TorchGenerator(seed: 7)
    #expect(generator.permutation(10) == [5, 0, 3, 4, 1, 7, 9, 6, 8, 2])
    #expect(generator.permutation(5) == [1, 3, 0, 2, 4])
    let normals = generator.normal(3), expected: [Float] = [-1.1912972, -1.6517658, -1.7176996]
    #expect(zip(normals, expected).allSatisfy { abs($0 - $1) < 1e-6 }, "\(normals)")
    #expect(generator.permutation(1) == [0] && generator.permutation(0).isEmpty)
  }
}
