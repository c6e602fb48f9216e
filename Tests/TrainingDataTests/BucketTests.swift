import LatentDiffusionComponents
import LatentDiffusionTrainingData
import Testing

@Suite struct BucketTests {
  private func pairs(_ buckets: AspectBuckets) -> [[Int]] { buckets.sizes.map { [$0.width, $0.height] } }

  /// The sizes that kohya's trainers list for 512², from 256 to 1024 in steps of 64.
  @Test func sizesAreThoseOfOtherTrainers() throws {
    #expect(
      try pairs(AspectBuckets(resolution: 512)) == [
        [256, 832], [256, 896], [256, 960], [256, 1024], [320, 704], [320, 768], [384, 640], [448, 576], [512, 512], [576, 448],
        [640, 384],
        [704, 320], [768, 320], [832, 256], [896, 256], [960, 256], [1024, 256],
      ])
    #expect(try pairs(AspectBuckets(resolution: 64)) == [[64, 64]])
    #expect(
      try pairs(AspectBuckets(resolution: 64, step: 8, shortest: 48, longest: 80)) == [
        [48, 80], [56, 72], [64, 64], [72, 56], [80, 48],
      ])
  }

  @Test(arguments: [(512, 64), (1024, 64), (768, 32), (96, 8), (100, 10)])
  func allSizesKeepTheRules(_ resolution: Int, _ step: Int) throws {
    let sizes = try AspectBuckets(resolution: resolution, step: step).sizes
    for size in sizes {
      #expect(size.width % step == 0 && size.height % step == 0)
      #expect(size.width * size.height <= resolution * resolution)
      #expect(2 * min(size.width, size.height) >= resolution - 1 && max(size.width, size.height) <= 2 * resolution)
      #expect(sizes.contains(PixelSize(width: size.height, height: size.width)))
    }
    #expect(Set(sizes).count == sizes.count)
  }

  @Test(
    arguments: [
      ((512, 512), (512, 512)), ((4000, 3000), (576, 448)), ((3000, 4000), (448, 576)), ((1920, 1080), (640, 384)),
      ((1, 1000), (256, 1024)),
      ((1000, 1), (1024, 256)), ((10, 10), (512, 512)), ((16384, 16383), (512, 512)),
    ] as [((Int, Int), (Int, Int))])
  func aPictureGoesToTheNearestProportions(_ picture: (Int, Int), _ size: (Int, Int)) throws {
    let nearest = try AspectBuckets(resolution: 512).nearest(to: PixelSize(width: picture.0, height: picture.1))
    #expect(nearest == PixelSize(width: size.0, height: size.1))
  }

  @Test func turnedPicturesGoToTurnedSizes() throws {
    let buckets = try AspectBuckets(resolution: 512)
    for width in stride(from: 100, through: 900, by: 7) {
      let size = buckets.nearest(to: PixelSize(width: width, height: 300)),
        turned = buckets.nearest(to: PixelSize(width: 300, height: width))
      #expect((size.width, size.height) == (turned.height, turned.width))
    }
  }

  @Test func impossibleSizesAreErrors() throws {
    for (resolution, step, shortest, longest) in [
      (0, 64, nil, nil), (-64, 64, nil, nil), (500, 64, nil, nil), (512, 0, nil, nil), (512, -1, nil, nil), (512, 64, 576, nil),
      (512, 64, nil, 448), (512, 64, 250, nil), (512, 64, 0, nil), (1 << 40, 64, nil, nil), (Int.max, 1, nil, nil), (512, 64, nil, 1 << 20),
    ] as [(Int, Int, Int?, Int?)] {
      let error = #expect(throws: TrainingDataError.self) {
        try AspectBuckets(resolution: resolution, step: step, shortest: shortest, longest: longest)
      }
      #expect(try #require(error).description.contains("must be"))
    }
    #expect(throws: TrainingDataError.self) { try AspectBuckets(only: PixelSize(width: 60, height: 64)) }
    #expect(try AspectBuckets(only: PixelSize(width: 60, height: 64), multiple: 4).sizes.count == 1)
  }
}
