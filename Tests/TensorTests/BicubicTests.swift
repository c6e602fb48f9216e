import LatentDiffusionTestSupport
import Tensor
import Testing

@Suite struct BicubicTests {
  /// The numbers are those of `torch.nn.functional.interpolate(x[None, None], size=…, mode="bicubic", align_corners=False)`, PyTorch 2.13.
  @Test(
    .compares("Bicubic resampling", in: .operations, with: "torch"),
    arguments: [
      (
        [2, 7],
        [
          0.759108, 0.536749, 0.526774, 2.143372, 3.745153, 3.698724, 3.449729, 1.166573, 3.220227, 5.520519, 2.800353, 0.461125, 3.698578,
          6.437091,
        ]
      ),
      (
        [5, 3],
        [
          -0.150843, 3.00475, 1.875843, 1.116183, 1.651812, 4.427827, 2.615163, 0.453125, 7.164931, 2.409766, 2.207563, 5.673912, 1.921918,
          3.895251, 3.872495,
        ]
      ),
    ]) func equalsPyTorch(_ size: [Int], _ expected: [Float])
  {
    let x: [Float] = [0, 1, 4, 2, 3, 0.5, 2, 8, 1, 7, 0, 5]
    // The second channel is the first one with the other sign, and the second picture twice the first.
    let pictures = Tensor(x.flatMap { [$0, -$0] } + x.flatMap { [2 * $0, -2 * $0] }, shape: [2, 3, 4, 2])
    let found = pictures.interpolatedBicubic(height: size[0], width: size[1])
    #expect(found.shape == [2, size[0], size[1], 2])
    let all = expected.flatMap { [$0, -$0] } + expected.flatMap { [2 * $0, -2 * $0] }
    expectClose(found.elements, all, tolerance: 1e-6)
    #expect(pictures.interpolatedBicubic(height: 3, width: 4).elements == pictures.elements)
  }
}
