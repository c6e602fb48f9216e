import LatentDiffusionTestSupport
import Tensor
import Testing

@Suite struct PhiloxGeneratorTests {
  /// Against cuRAND 10.3.10, its headers compiled for a CPU and driven by PyTorch's choice of threads and offsets.
  @Test(.compares("PyTorch's CUDA generator, normal numbers", in: .operations, with: "nvidia-curand-cu12", unit: .absolute))
  func drawsWhatCuRANDDraws() throws {
    var largest: Float = 0
    for item in try GeneratorFixture(named: "philox").cases {
      var generator = PhiloxGenerator(seed: item.seed, residentThreads: item.residentThreads)
      for (index, draw) in item.draws.enumerated() {
        let label = "seed \(item.seed), \(item.residentThreads ?? 0) threads, draw \(index)"
        switch draw.kind {
        case .integers: try draw.expectEqual(generator.integers(draw.count), label)
        case .uniform: try draw.expectEqual(generator.uniform(draw.count).map(\.bitPattern), label)
        case .normal: largest = max(largest, try draw.expectClose(generator.normal(draw.count), label))
        }
      }
    }
    print("PhiloxGenerator: normals differ by at most \(largest)")
  }

  /// The first word of each element for a seed of zero, from the known answers of Philox4x32-10 (counter 0, key 0) in Random123.
  @Test func integersAreThoseOfTheKnownAnswer() {
    var generator = PhiloxGenerator(seed: 0)
    #expect(generator.integers(1) == [0x6627_e8d5])
    // With 256 threads, the other three words of the first counter are 256 places apart.
    var narrow = PhiloxGenerator(seed: 0, residentThreads: 256)
    let words = narrow.integers(1024)
    #expect([words[0], words[256], words[512], words[768]] == [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8])
  }

  /// What stable-diffusion-webui documents of its generator (`modules/rng_philox.py`, the setting `NV`).
  @Test func drawsWhatTheWebUIDraws() {
    var generator = PhiloxGenerator(seed: 0)
    let documented: [Float] = [
      -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709, -1.07454231, -0.36314407,
      -1.67105067,
      2.26550497,
    ]
    for (found, expected) in zip(generator.normal(12), documented) { #expect(abs(found - expected) < 1e-6) }
  }

  /// What real GPUs printed, to four decimals, in reports to PyTorch (issues 97097, 143086 and 62467): first and last values of draws
  /// for which the GPUs have too few threads. Places below zero count from the end.
  @Test(arguments: [
    Printed(
      gpu: "A4000", threads: 48 * 1536, seed: 14, count: 100_000, mean: 5, deviation: 5.squareRoot(),
      [
        0: 2.8731, 1: 5.2727, 2: 2.9889, 97: 1.6853, 98: 9.6331, 99: 6.6319, 100: 3.9968, 101: 3.8097, 102: 5.7328,
        -300: 8.6297, -299: 2.3137, -298: 6.2596, -100: 2.7337, -99: 2.2106, -98: 7.7815, -3: 8.2207, -2: 6.5395, -1: 4.2604,
      ]),
    Printed(
      gpu: "H100", threads: 132 * 2048, seed: 1, count: 49 * 12 * 112 * 144,
      [
        0: -0.2963, 1: 2.6764, 2: -0.1408, -3: -0.6970, -2: -0.7780, -1: 0.3267,
      ]),
    Printed(
      gpu: "A100", threads: 108 * 2048, seed: 1, count: 49 * 12 * 112 * 144,
      [
        0: -0.2963, 1: 2.6764, 2: -0.1408, -3: 0.1549, -2: -0.6797, -1: -0.1656,
      ]),
    Printed(gpu: "A6000", threads: 84 * 1536, seed: 43, count: 3 * 128 * 128, [0: 1.9983, 16384: 0.8704, 32768: 2.1127]),
  ])
  func drawsWhatGPUsDrew(_ printed: Printed) {
    var generator = PhiloxGenerator(seed: printed.seed, residentThreads: printed.threads)
    let drawn = generator.normal(printed.count)
    for (place, value) in printed.values {
      let found = Double(drawn[place < 0 ? drawn.count + place : place]) * printed.deviation + printed.mean
      #expect(abs(found - value) < 0.6e-4, "\(printed.gpu): \(found) at \(place), not \(value)")
    }
  }

  @Test func aCopyDrawsTheSameAgain() {
    var generator = PhiloxGenerator(seed: 3)
    var copy = generator
    let first = generator.normal(20)
    #expect(first == copy.normal(20))
    #expect(generator.normal(20) != first)
  }
}

/// Some of the values that a GPU drew, scaled by a deviation around a mean.
struct Printed: Sendable, CustomStringConvertible {
  let gpu: String
  let threads: Int
  let seed: UInt64
  let count: Int
  let mean: Double
  let deviation: Double
  let values: [Int: Double]

  init(gpu: String, threads: Int, seed: UInt64, count: Int, mean: Double = 0, deviation: Double = 1, _ values: [Int: Double]) {
    (self.gpu, self.threads, self.seed, self.count) = (gpu, threads, seed, count)
    (self.mean, self.deviation, self.values) = (mean, deviation, values)
  }

  var description: String { gpu }
}
