import Foundation
import ImageFiles
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTrainingData
import Tensor
import Testing

/// What `make_training_data.py` says.
struct TrainingDataFixture: Decodable {
  struct Permutation: Decodable, Sendable {
    let seed: UInt64
    let order: [Int]
  }
  struct Frame: Decodable, Sendable {
    let width: Int
    let height: Int
    let pixels: Data
    let target: [Int]
    let resized: [Int]
    let left: Int
    let top: Int
    let isFlipped: Bool
    let values: Data
  }

  let permutations: [Permutation]
  let frames: [Frame]

  static let all: TrainingDataFixture = {
    do {
      return try JSONDecoder().decode(
        TrainingDataFixture.self, from: Data(contentsOf: fixtures.appending(path: "training-data/training-data.json")))
    } catch {
      preconditionFailure("training-data.json cannot be read: \(error)")
    }
  }()
}

@Suite struct FramingTests {
  private let context = ExecutionContext(threads: 2)

  @Test(arguments: TrainingDataFixture.all.frames.indices) func picturesBecomeWhatPillowAndDiffusersMakeOfThem(_ index: Int) throws {
    let expected = TrainingDataFixture.all.frames[index]
    let picture = CaptionedPicture(
      Picture(width: expected.width, height: expected.height, pixels: Array(expected.pixels)), name: "\(index)", caption: "")
    let framing = PictureFraming(
      try AspectBuckets(only: PixelSize(width: expected.target[0], height: expected.target[1])), flips: expected.isFlipped)
    let framed = try #require(try BatchOrder([picture], framing: framing, batchSize: 1, seed: 0).framedPictures().last)
    let frame = framed.frame
    #expect([frame.resized.width, frame.resized.height] == expected.resized)
    #expect((frame.left, frame.top, frame.isFlipped) == (expected.left, expected.top, expected.isFlipped))
    let values = expected.values.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    let tensor = try framed.tensor()
    #expect(tensor.shape == [1, expected.target[1], expected.target[0], 3])
    #expect(tensor.elements == values)
  }

  @Test func sizesForSDXLAreThoseOfItsTrainingScript() throws {
    let framing = PictureFraming(try AspectBuckets(only: PixelSize(width: 16, height: 16)), flips: true)
    let framed = try BatchOrder([captioned(45, 20)], framing: framing, batchSize: 1, seed: 0).framedPictures()
    // 36×16, of which 10 are cut off at the left and 10 at the right.
    #expect(
      framed.map(\.sizes)
        == Array(repeating: SizeConditioning(original: PixelSize(width: 45, height: 20), crop: .init(top: 0, left: 10)), count: 2))
    let odd = try BatchOrder([captioned(41, 20)], framing: framing, batchSize: 1, seed: 0).framedPictures()
    // 32 wide, 16 cut off in all: 8 on each side; with 33, 8 at the left and 9 at the right, which is the left of the mirrored one.
    #expect(odd.map(\.sizes.crop?.left) == [8, 8])
    let uneven = try BatchOrder([captioned(42, 20)], framing: framing, batchSize: 1, seed: 0).framedPictures()
    #expect(uneven.map(\.frame.resized.width) == [33, 33])
    #expect(uneven.map(\.sizes.crop?.left) == [8, 9])
  }

  @Test func randomCropsAreInsideAndReachAllEdges() throws {
    let picture = captioned(20, 16),
      framing = PictureFraming(
        try AspectBuckets(only: PixelSize(width: 16, height: 16)), crop: .random, flips: true)
    let order = try BatchOrder([picture], framing: framing, batchSize: 1, seed: 3)
    let frames = try order.batches().prefix(200).map { try #require($0.pictures.first).frame }
    #expect(Set(frames.map(\.left)) == [0, 1, 2, 3, 4])
    #expect(Set(frames.map(\.top)) == [0])
    #expect((70...130).contains(frames.count { $0.isFlipped }))
    #expect(throws: TrainingDataError.randomCrops) { try order.framedPictures() }
    // What is cut is the part itself, since nothing is resized.
    let pixels = try picture.picture()
    let batch = try #require(order.batches().first { _ in true })
    let frame = batch.pictures[0].frame, values = try batch.images(in: context).elements
    for (y, x) in [(0, 0), (7, 3), (15, 15)] {
      let column = frame.left + (frame.isFlipped ? 15 - x : x)
      #expect(values[(y * 16 + x) * 3] == 2 * (Float(pixels.pixels[(y * 20 + column) * 3]) / 255) - 1)
    }
  }

  @Test func extremeProportionsTakeNoMemory() throws {
    let line = CaptionedPicture(
      Picture(width: 16384, height: 1, pixels: .init(repeating: 51, count: 16384 * 3)), name: "line", caption: "")
    let framing = PictureFraming(try AspectBuckets(only: PixelSize(width: 64, height: 64)))
    let batch = try #require(BatchOrder([line], framing: framing, batchSize: 1, seed: 0).batches().first { _ in true })
    #expect(batch.pictures[0].frame.resized == PixelSize(width: 64 * 16384, height: 64))
    #expect(try batch.images(in: context).elements.allSatisfy { abs($0 + 0.6) < 1e-6 })
  }
}
