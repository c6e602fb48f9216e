import Foundation
import LatentDiffusionLayers
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

@Suite struct LayerTests {
  private let context = ExecutionContext()

  private func load<Layer>(_ build: (WeightScope) throws -> Layer) throws -> Layer {
    try LoadReport.load(from: RandomWeights(seed: 3), in: context, build).component
  }

  private func noise(_ shape: Shape, seed: UInt64 = 1) -> Tensor {
    var generator = TorchGenerator(seed: seed)
    return Tensor(generator.normal(shape.count), shape: shape)
  }

  /// A layer is the operation with its parameters in place: shift, residual, inputs side by side, behind a doubling of the sides.
  @Test func convolutionIsTheOperation() throws {
    let source = RandomWeights(seed: 3)
    let layer = try load { try Convolution2D(40, 64, kernel: 3, padding: 1, weights: $0) }
    let weights = try PackedMatrix(source.tensor("weight", shape: [64, 40, 3, 3]), in: context)
    let bias = try source.tensor("bias", shape: [64]).decoded()
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    let x = noise([2, 13, 30, 40])
    let (shift, residual) = (noise([2, 64], seed: 2), noise([2, 26, 60, 64], seed: 3))
    let spread = Tensor.concatenated((0..<2).map { shift.rows($0..<$0 + 1).repeated(26 * 60) }, axis: 0).reshaped(residual.shape)
    let expected = try Tensor.convolution(
      [x.resizedNearest(height: 26, width: 60)], weights: weights, geometry: geometry, bias: bias, method: .direct, in: context)
    let parts = [x.channels(0..<8), x.channels(8..<40)]
    let found = try layer(parts, resizedTo: (26, 60), shiftedBy: shift, adding: residual, in: context)
    // Winograd's transforms, where the layer chooses them, round to some 1e-5.
    expectClose(found, expected + spread + residual, tolerance: 1e-4)
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
