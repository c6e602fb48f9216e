import Foundation
import Layers
import Tensor
import TestSupport
import Testing
import Weights

@Suite struct LayerTests {
  private let context = ExecutionContext()

  private func load<Layer>(_ build: (WeightScope) throws -> Layer) throws -> Layer {
    try LoadReport.load(from: RandomWeights(seed: 3), in: context, build).component
  }

  private func noise(_ shape: Shape, seed: UInt64 = 1) -> Tensor {
    var generator = TorchGenerator(seed: seed)
    return Tensor(generator.normal(shape.count), shape: shape)
  }

  /// The two forms of a convolution differ by the rounding of Winograd's transforms, some 1e-6 of the result for each of a few digits.
  @Test(arguments: [(32, 32, 24, 24), (40, 64, 13, 30), (96, 33, 31, 5), (330, 48, 9, 9)])
  func winogradEqualsTheDirectSum(_ inChannels: Int, _ outChannels: Int, _ height: Int, _ width: Int) throws {
    let direct = try load { try Convolution2D(inChannels, outChannels, kernel: 3, padding: 1, weights: $0) }
    let winograd = try load { try Convolution2D(inChannels, outChannels, kernel: 3, padding: 1, side: 64, weights: $0) }
    let x = noise([2, height, width, inChannels])
    let shift = noise([2, outChannels], seed: 2)
    let residual = noise([2, height, width, outChannels], seed: 3)
    let expected = try direct(x, shiftedBy: shift, adding: residual, in: context)
    let found = try winograd(x, shiftedBy: shift, adding: residual, in: context)
    let difference = expectClose(found, expected, tolerance: 1e-4)
    #expect(difference.largest > 0, "Both forms took the same way")

    // Side by side in channels, and behind a doubling of the sides.
    let parts = [x.channels(0..<8), x.channels(8..<inChannels)]
    let size = (height: 2 * height, width: 2 * width)
    expectClose(
      try winograd(parts, resizedTo: size, in: context), try direct(x.resizedNearest(height: size.height, width: size.width), in: context),
      tolerance: 1e-4)
  }

  /// Source: diffusers' `get_timestep_embedding(torch.tensor([3.0]), 4, flip_sin_to_cos=…, downscale_freq_shift=…)`.
  @Test func timestepsAreSinusoids() {
    let usual = Timesteps(4, flipSinToCos: true, frequencyShift: 0)([3])
    expectClose(usual.elements, [cos(3), cos(0.03), sin(3), sin(0.03)], tolerance: 1e-6)
    let shifted = Timesteps(5, flipSinToCos: false, frequencyShift: 1)([3])
    expectClose(shifted.elements, [sin(3), sin(3e-4), cos(3), cos(3e-4), 0], tolerance: 1e-6)
  }

  @Test func everythingThatIsMissingIsReportedAtOnce() throws {
    let source = WeightTable([:])
    let error = #expect(throws: WeightErrors.self) {
      try LoadReport.load(from: source, in: context) {
        try ResnetBlock2D(32, 64, timeChannels: 16, groups: 8, epsilon: 1e-5, weights: $0["down_blocks"][0]["resnets"][1])
      }
    }
    let names = try #require(error).problems.map(\.description)
    #expect(names.count == 12)
    #expect(names.allSatisfy { $0.contains("down_blocks.0.resnets.1.") })
  }
}
