import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// An engine that follows layers without computing: shapes, arithmetic and memory of what would be computed, by the layers that compute it.
@Suite struct CountingTests {
  private let counter = WorkCounter()
  private var engine: CountingEngine { CountingEngine(counter, threads: 2) }
  private var context: ExecutionContext { engine.context }

  private func layer<Layer>(_ make: (WeightScope) throws -> Layer) throws -> Layer {
    try LoadReport.load(from: RandomWeights(seed: 1), in: ExecutionContext(threads: 1)) { try make($0) }.component
  }

  @Test func aLinearLayerIsItsProduct() throws {
    let linear = try layer { try Linear(64, 96, weights: $0["a"]) }
    let result = try linear(engine.input([2, 100, 64]), in: context)
    #expect(result.shape == [2, 100, 96] && counter.operations == 2 * 200 * 64 * 96)
    // The result is 76,800 bytes, in a buffer that may be a little larger; the rest are the threads' buffers.
    #expect((76_800..<90_000).contains(counter.liveBytes) && counter.peakBytes > counter.liveBytes)
  }

  /// What nobody holds is not counted any more, and what works in place takes no more memory.
  @Test func whatIsHandedOverIsUsedAgain() throws {
    let norm = try layer { try GroupNorm(groups: 4, channels: 16, epsilon: 1e-5, weights: $0["n"]) }
    let convolution = try layer { try Convolution2D(16, 16, kernel: 3, padding: 1, weights: $0["c"]) }
    let bytes = 64 * 64 * 16 * 4
    func run() throws {
      var x = try convolution(engine.input([1, 64, 64, 16]), in: context)
      #expect(counter.liveBytes == bytes)
      x = try norm(consume x, in: context)
      #expect(counter.liveBytes == bytes)
      let y = x
      // Somebody else holds it, so that a place of its own is needed.
      x = try norm(x, in: context)
      #expect(counter.liveBytes == 2 * bytes && y.shape == x.shape)
    }
    try run()
    #expect(counter.liveBytes == 0 && counter.peakBytes >= 2 * bytes)
  }

  /// A large input goes as the result of a convolution comes: never are both there.
  @Test func largeInputsGoOnTheWay() throws {
    let convolution = try layer { try Convolution2D(32, 32, kernel: 3, padding: 1, weights: $0["c"]) }
    let bytes = 1024 * 1024 * 32 * 4
    func peak(handingOver: Bool) throws -> Int {
      let counter = WorkCounter()
      let context = CountingEngine(counter, threads: 2).context
      // 128 MiB: beyond what is kept.
      let x = try convolution(CountingEngine(WorkCounter(), threads: 2).input([1, 1024, 1024, 32]), in: context)
      if handingOver {
        _ = try convolution(consume x, in: context)
      } else {
        _ = try withExtendedLifetime(x) { try convolution(x, in: context) }
      }
      return counter.peakBytes
    }
    let (given, kept) = (try peak(handingOver: true), try peak(handingOver: false))
    #expect(given < 2 * bytes && kept > 2 * bytes)
  }

  /// All networks of the embedded model, with their real weights and without any element: the shapes that come out are those of real passes.
  @Test func networksAreFollowed() throws {
    let model = try StableDiffusion.load(from: EmojiModel.folder())
    let (predictor, autoencoder) = (model.pipeline.predictor, model.pipeline.autoencoder)
    func run() throws {
      let text = try model.pipeline.conditioner.condition(
        ConditioningRequest(["a cat", "a dog"], size: PixelSize(width: 64, height: 64)), in: context)
      #expect(text.contexts[0].shape[0] == 2 && text.contexts[0].shape[1] == model.tokenizer?.maximumLength)
      let prediction = try predictor.predict(engine.input([2, 16, 16, 4]), timestep: 3, conditioning: text, in: context)
      #expect(prediction.shape == [2, 16, 16, 4])
      #expect(try autoencoder.decode(engine.input([1, 16, 16, 4]), in: context).shape == [1, 64, 64, 3])
      #expect(try autoencoder.encode(engine.input([1, 64, 64, 3]), in: context).mode.shape == [1, 16, 16, 4])
    }
    try run()
    #expect(counter.liveBytes == 0 && counter.peakBytes > 1_000_000 && counter.operations > 1e9)
  }

  /// Tiles of tensors without elements are cut out and put together without any.
  @Test func tilesAreFollowed() throws {
    let model = try StableDiffusion.load(from: EmojiModel.folder())
    let whole = try #require(model.pipeline.autoencoder as? TiledAutoencoder)
    let tiled = TiledAutoencoder(whole.base, tiling: .tiles(AutoencoderTiles(latentSide: 8)))
    #expect(try tiled.decode(engine.input([1, 20, 12, 4]), in: context).shape == [1, 80, 48, 3])
    #expect(try tiled.encode(engine.input([1, 80, 48, 3]), in: context).mode.shape == [1, 20, 12, 4])
    #expect(counter.operations > 1e8)
  }
}
