import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTrainingData
import Tensor
import Testing

@Suite struct BatchOrderTests {
  private func square(_ side: Int = 8) throws -> PictureFraming {
    PictureFraming(try AspectBuckets(only: PixelSize(width: side, height: side)))
  }

  private func names(_ batches: some Sequence<TrainingBatch>) -> [[String]] { batches.map { $0.pictures.map(\.picture.name) } }

  @Test(arguments: TrainingDataFixture.all.permutations) func eachEpochIsPyTorchsPermutation(_ expected: TrainingDataFixture.Permutation)
    throws
  {
    let one = smallPicture(8, 8)
    let pictures = expected.order.indices.map { CaptionedPicture(one, name: "\($0)", caption: "\($0)") }
    // Of the epoch before, too: the generator is seeded with the sum.
    for (seed, skipped) in [(expected.seed, 0), (expected.seed &- 1, 1)] {
      let order = try BatchOrder(pictures, framing: square(), batchSize: 7, seed: seed)
      let batches = try order.batches().prefix((skipped + 1) * order.batchesPerEpoch).suffix(order.batchesPerEpoch)
      #expect(names(batches).joined().map { $0 } == expected.order.map(String.init))
      #expect(batches.allSatisfy { $0.epoch == skipped })
      #expect(batches.dropLast().allSatisfy { $0.pictures.count == 7 })
    }
  }

  @Test func batchesAreOfOneSizeAndEachPictureIsSeenOnce() throws {
    let pictures = (0..<23).map { captioned([16, 30, 9][$0 % 3], 16, seed: UInt64($0), caption: "c\($0)") }
    let framing = PictureFraming(try AspectBuckets(resolution: 16, step: 4), crop: .random, flips: true)
    let order = try BatchOrder(pictures, framing: framing, batchSize: 4, seed: 1)
    // 8 squares, 8 wide and 7 tall ones.
    #expect(order.batchesPerEpoch == 6)
    var iterator = try order.batches()
    for epoch in 0..<3 {
      let batches = (0..<6).compactMap { _ in iterator.next() }
      #expect(batches.map(\.number) == Array(epoch * 6..<epoch * 6 + 6))
      for batch in batches {
        #expect(batch.pictures.allSatisfy { $0.frame.size == batch.size })
        #expect(batch.captions == batch.pictures.map { "c" + $0.picture.name })
        #expect(batch.sizes.map(\.original) == batch.pictures.map(\.picture.size))
        let images = try batch.images(in: ExecutionContext(threads: 2))
        #expect(images.shape == [batch.pictures.count, batch.size.height, batch.size.width, 3])
        #expect(images.elements == (try batch.images(in: ExecutionContext(threads: 5)).elements))
      }
      #expect(batches.flatMap(\.captions).sorted() == pictures.map(\.caption).sorted())
      #expect(batches.map(\.pictures.count).sorted() == [3, 4, 4, 4, 4, 4])
    }
    let again = try order.batches().prefix(18), once = try order.batches().prefix(18)
    #expect(names(again) == names(once))
    #expect(names(again.prefix(6)) != names(again.dropFirst(6).prefix(6)))
    #expect(names(again) != names(try BatchOrder(pictures, framing: framing, batchSize: 4, seed: 2).batches().prefix(18)))
  }

  @Test func aRunGoesOnFromItsPlace() throws {
    let pictures = (0..<11).map { captioned(8 + $0 % 2 * 8, 8, seed: UInt64($0)) }
    let framing = PictureFraming(try AspectBuckets(resolution: 8, step: 4), crop: .random, flips: true)
    let order = try BatchOrder(pictures, framing: framing, batchSize: 2, seed: 9)
    let whole = try Array(order.batches().prefix(40))
    for stop in [0, 1, 5, 6, 13, 29] {
      var first = try order.batches()
      for _ in 0..<stop { _ = first.next() }
      let place = try JSONDecoder().decode(BatchPlace.self, from: JSONEncoder().encode(first.place))
      #expect(place == first.place)
      let rest = try BatchOrder(pictures, framing: framing, batchSize: 2, seed: 9).batches(from: place).prefix(40 - stop)
      #expect(rest.map(\.number) == whole.dropFirst(stop).map(\.number))
      #expect(rest.map { $0.pictures.map(\.frame) } == whole.dropFirst(stop).map { $0.pictures.map(\.frame) })
      #expect(names(rest) == names(whole.dropFirst(stop)))
    }
  }

  @Test func machinesShareBatches() throws {
    let pictures = (0..<10).map { captioned(8, 8, seed: UInt64($0)) }
    let order = try BatchOrder(pictures, framing: square(), batchSize: 3, seed: 0)
    let whole = try names(order.batches().prefix(24))
    for index in 0..<3 {
      var part = try order.batches(share: BatchShare(index: index, count: 3))
      #expect(names((0..<8).compactMap { _ in part.next() }) == stride(from: index, to: 24, by: 3).map { whole[$0] })
      #expect(part.place.batch == 24)
    }
    for share in [BatchShare(index: 3, count: 3), BatchShare(index: -1, count: 3), BatchShare(index: 0, count: 0)] {
      #expect(throws: TrainingDataError.self) { try order.batches(share: share) }
    }
  }

  @Test func aPlaceInOtherDataIsRefused() throws {
    let pictures = (0..<3).map { captioned(8, 8, seed: UInt64($0), caption: "c") }
    let order = try BatchOrder(pictures, framing: square(), batchSize: 2, seed: 0)
    let place = try order.batches().place
    var recaptioned = pictures
    recaptioned[1] = captioned(8, 8, seed: 1, caption: "d")
    var flipping = try square()
    flipping.flips = true
    for other in try [
      BatchOrder(pictures.dropLast(), framing: square(), batchSize: 2, seed: 0),
      BatchOrder(recaptioned, framing: square(), batchSize: 2, seed: 0),
      BatchOrder(pictures, framing: flipping, batchSize: 2, seed: 0), BatchOrder(pictures, framing: square(16), batchSize: 2, seed: 0),
      BatchOrder(pictures, framing: square(), batchSize: 1, seed: 0), BatchOrder(pictures, framing: square(), batchSize: 2, seed: 1),
    ] {
      #expect(throws: TrainingDataError.otherOrder) { try other.batches(from: place) }
    }
    for batch in ["-1", "9223372036854775807"] {
      let damaged = try JSONDecoder().decode(BatchPlace.self, from: Data("{\"batch\":\(batch),\"order\":\"\(order.content)\"}".utf8))
      #expect(throws: TrainingDataError.otherOrder) { try order.batches(from: damaged) }
    }
    #expect(throws: DecodingError.self) { try JSONDecoder().decode(BatchPlace.self, from: Data("{\"batch\":1,\"order\":\"x\"}".utf8)) }
  }

  @Test func oneSmallPictureIsEnough() throws {
    let order = try BatchOrder([captioned(3, 2)], framing: square(64), batchSize: 4, seed: 0)
    #expect(order.batchesPerEpoch == 1)
    #expect(try names(order.batches().prefix(3)) == [["0"], ["0"], ["0"]])
    #expect(order.enlarged.map(\.name) == ["0"])
    #expect(try BatchOrder([captioned(64, 65)], framing: square(64), batchSize: 4, seed: 0).enlarged.isEmpty)
    #expect(throws: TrainingDataError.self) { try BatchOrder([], framing: square(), batchSize: 1, seed: 0) }
    for size in [0, -1, Int.max] {
      #expect(throws: TrainingDataError.self) { try BatchOrder([captioned()], framing: square(), batchSize: size, seed: 0) }
    }
  }
}
