import Foundation
import LatentDiffusionComponents
import LatentDiffusionFiles
import LatentDiffusionTestSupport
import LatentDiffusionTrainingData
import LatentDiffusionWeights
import Synchronization
import Tensor
import Testing

/// Counts what it is asked for.
private final class Calls: Sendable {
  private let counter = Atomic<Int>(0)
  var count: Int { counter.exchange(0, ordering: .relaxed) }
  func add() { counter.add(1, ordering: .relaxed) }
}

/// Each latent is the mean of 4×4 pixels' values in one colour.
private struct ToyAutoencoder: LatentAutoencoder {
  let spatialScale = 4, latentChannels = 3
  let latentScale: Float = 1
  var isPlain = false
  /// Fails from this picture on.
  var last = Int.max
  let calls = Calls()
  private let seen = Calls()

  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    try checkPicture(image)
    calls.add()
    let (height, width) = (image.shape[1] / 4, image.shape[2] / 4), elements = image.elements
    let means = (0..<height * width * 3).map { index -> Float in
      let (channel, x, y) = (index % 3, index / 3 % width, index / 3 / width)
      return (0..<16).reduce(0) { $0 + elements[((4 * y + $1 / 4) * image.shape[2] + 4 * x + $1 % 4) * 3 + channel] } / 16
    }
    let mean = Tensor(means, shape: [1, height, width, 3])
    if mean.elements[0] > Float(last) { throw CancellationError() }
    return isPlain ? .latents(mean) : .distribution(DiagonalGaussian(mean: mean, logVariance: mean - 4))
  }

  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor { latents }
}

/// A state for each letter of a text, and the sizes.
private struct Letters: TextConditioner {
  let calls = Calls()

  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    calls.add()
    let rows = request.prompts.map { prompt in
      let letters = prompt.text.utf8.prefix(4).map(Float.init)
      return letters + Array(repeating: Float(prompt.skippedLayers), count: 4 - letters.count)
    }
    let states = Tensor(rows.flatMap(\.self), shape: [rows.count, 4, 1])
    return Conditioning(
      hiddenStates: states, pooled: states.reshaped([rows.count, 4]),
      inputs: try sizeInputs(request).merging(["length": Tensor(rows.map { $0[0] }, shape: [rows.count, 1])]) { first, _ in first })
  }

  func sizeInputs(_ request: ConditioningRequest) throws -> [String: Tensor] {
    let numbers = [request.size.width, request.sizes.original?.width ?? 0, request.sizes.crop?.left ?? 0].map(Float.init)
    return ["sizes": Tensor(request.prompts.flatMap { _ in numbers }, shape: [request.prompts.count, 3])]
  }
}

@Suite struct EncodingCacheTests {
  private let context = ExecutionContext(threads: 2)
  private let model = ContentHash("model")

  private func order(_ count: Int, side: Int = 8, flips: Bool = false) throws -> BatchOrder {
    let framing = PictureFraming(try AspectBuckets(only: PixelSize(width: side, height: side)), flips: flips)
    return try BatchOrder((0..<count).map { captioned(11, 9, seed: UInt64($0)) }, framing: framing, batchSize: 2, seed: 0)
  }

  @Test(arguments: [false, true]) func latentsAreComputedOnce(isPlain: Bool) throws {
    let folder = try TemporaryFolder(), url = folder.url.appending(path: "cache.safetensors")
    let autoencoder = ToyAutoencoder(isPlain: isPlain), order = try order(5, flips: true)
    var cache = try EncodingCache(at: url)
    let report = try cache.encode(order.framedPictures(), by: autoencoder, model: model, in: context)
    #expect((report.kept, report.encoded, report.dropped, report.stale) == (0, 10, 0, 0))
    #expect(autoencoder.calls.count == 10)
    let bytes = try Data(contentsOf: url)

    var again = try EncodingCache(at: url)
    let second = try again.encode(order.framedPictures(), by: autoencoder, model: model, in: ExecutionContext(threads: 7))
    #expect((second.kept, second.encoded) == (10, 0))
    #expect(autoencoder.calls.count == 0)
    #expect(try Data(contentsOf: url) == bytes)
    for batch in try order.batches().prefix(6) {
      let rows = try batch.pictures.map { try autoencoder.encode($0.tensor(), in: context) }
      for cache in [cache, again] {
        let encoded = try cache.encoded(batch.pictures)
        #expect(encoded.mode.elements == rows.flatMap(\.mode.elements))
        #expect(encoded.mode.shape == [batch.pictures.count, 2, 2, 3])
        #expect(encoded.gaussian?.logVariance.elements == (isPlain ? nil : rows.compactMap(\.gaussian).flatMap(\.logVariance.elements)))
      }
    }
  }

  @Test func theSameBytesWhateverWasThereAndHoweverManyThreads() throws {
    let folder = try TemporaryFolder()
    let files = try [1, 4].map { threads in
      let url = folder.url.appending(path: "\(threads).safetensors")
      var cache = try EncodingCache(at: url)
      if threads == 4 { _ = try cache.encode(order(3).framedPictures(), by: ToyAutoencoder(), model: model, in: context) }
      _ = try cache.encode(order(9).framedPictures(), by: ToyAutoencoder(), model: model, in: ExecutionContext(threads: threads))
      return try Data(contentsOf: url)
    }
    #expect(files[0] == files[1])
  }

  @Test func whatChangedIsEncodedAnewAndTold() throws {
    let folder = try TemporaryFolder(), url = folder.url.appending(path: "cache.safetensors")
    let autoencoder = ToyAutoencoder()
    func report(_ order: BatchOrder, model: ContentHash) throws -> CacheReport {
      var cache = try EncodingCache(at: url)
      return try cache.encode(order.framedPictures(), by: autoencoder, model: model, in: context)
    }
    #expect(try report(order(4), model: model).description == "\(url.path): 4 pictures were encoded.")
    // One picture more.
    #expect(try report(order(5), model: model).description == "\(url.path): 1 of 5 pictures was encoded and the others were there.")
    // Another size.
    let resized = try report(order(5, side: 16), model: model)
    #expect(resized.description == "\(url.path): 5 pictures were encoded; 5 of other data or settings were dropped.")
    // Another model.
    let other = try report(order(5, side: 16), model: ContentHash("other"))
    #expect(other.description == "\(url.path): 5 pictures were encoded; 5 that another model had made were dropped.")
    #expect(try report(order(5, side: 16), model: ContentHash("other")).description == "\(url.path): all 5 pictures were there.")
    #expect(autoencoder.calls.count == 4 + 1 + 5 + 5)
  }

  @Test func textsAreComputedOnceWithoutWhatFollowsFromSizes() throws {
    let folder = try TemporaryFolder(), url = folder.url.appending(path: "cache.safetensors")
    let letters = Letters(), prompts: [Prompt] = ["cat", "dog", "", "cat", Prompt("cat", skippedLayers: 1)]
    var cache = try EncodingCache(at: url)
    _ = try cache.encode(order(2).framedPictures(), by: ToyAutoencoder(), model: model, in: context)
    #expect(try cache.encode(prompts, by: letters, model: model, in: context).encoded == 4)
    #expect(letters.calls.count == 4)
    var again = try EncodingCache(at: url)
    #expect(try again.encode(prompts, by: letters, model: model, in: context).kept == 4)
    // The pictures are still there, too.
    #expect(try again.encode(order(2).framedPictures(), by: ToyAutoencoder(), model: model, in: context).kept == 2)
    #expect(letters.calls.count == 0)
    let expected = try letters.condition(ConditioningRequest(prompts, size: PixelSize(width: 8, height: 8)), in: context)
    let found = try again.conditioning(prompts)
    #expect(found.rows == 5)
    #expect(found.contexts.map(\.elements) == expected.contexts.map(\.elements))
    #expect(found.contexts.map(\.shape) == expected.contexts.map(\.shape))
    #expect(found.pooled?.elements == expected.pooled?.elements)
    #expect(Array(found.inputs.keys) == ["length"])
    #expect(found.inputs["length"]?.elements == expected.inputs["length"]?.elements)
    #expect(throws: TrainingDataError.notEncoded("The text \"cow\"")) { try again.conditioning(["cow"]) }
  }

  @Test func aBatchIsToldTheSizesOfItsPictures() throws {
    let letters = Letters(), framing = PictureFraming(try AspectBuckets(only: PixelSize(width: 8, height: 8)))
    let pictures = [captioned(11, 9, seed: 0, caption: "cat"), captioned(33, 16, seed: 1, caption: "dog")]
    let batch = try #require(BatchOrder(pictures, framing: framing, batchSize: 2, seed: 0).batches().first { _ in true })
    var cache = try EncodingCache(at: nil)
    _ = try cache.encode(["cat", "dog", ""], by: letters, model: model, in: context)
    let prompts = [Prompt(batch.captions[0]), ""]
    let found = try cache.conditioning(prompts, for: batch, by: letters)
    let rows = try zip(prompts, batch.pictures).map { prompt, picture in
      try letters.condition(ConditioningRequest([prompt], size: batch.size, sizes: picture.sizes), in: context)
    }
    let expected = try Conditioning.concatenated(rows)
    #expect(found.rows == 2)
    #expect(found.contexts.map(\.elements) == expected.contexts.map(\.elements))
    #expect(found.inputs.mapValues(\.elements) == expected.inputs.mapValues(\.elements))
    let numbers: Set<Float> = Set(found.inputs["sizes"]?.elements ?? [])
    #expect(numbers == [8, 11, 0, 33, 4])
  }

  @Test func modelsWithoutTextsHaveEntriesToo() throws {
    let folder = try TemporaryFolder(), url = folder.url.appending(path: "cache.safetensors")
    for kept in [0, 1] {
      var cache = try EncodingCache(at: url)
      #expect(try cache.encode([""], by: NoConditioner(), model: model, in: context).kept == kept)
      let found = try cache.conditioning(["", ""])
      #expect(found.rows == 2 && found.contexts.isEmpty && found.pooled == nil)
    }
  }

  @Test func withoutAFileEntriesAreInMemory() throws {
    var cache = try EncodingCache(at: nil)
    let order = try order(3)
    #expect(
      try cache.encode(order.framedPictures(), by: ToyAutoencoder(), model: model, in: context).description
        == "Memory: 3 pictures were encoded.")
    #expect(try cache.encoded(Array(order.framedPictures().prefix(2))).mode.shape == [2, 2, 2, 3])
    let other = try self.order(4).framedPictures()
    #expect(throws: TrainingDataError.notEncoded("3")) { try cache.encoded(other) }
  }

  @Test func anInterruptionKeepsWhatWasEncoded() throws {
    let folder = try TemporaryFolder(), url = folder.url.appending(path: "cache.safetensors")
    var told = context
    let progress = Mutex<[Int]>([])
    let stopping = ExecutionContext(threads: 1)
    told = stopping
    told.progress = { done, _ in
      progress.withLock { $0.append(done) }
      if done >= 8 { stopping.cancel() }
    }
    var cache = try EncodingCache(at: url)
    let pictures = try order(12).framedPictures()
    #expect(throws: CancellationError.self) { try cache.encode(pictures, by: ToyAutoencoder(), model: model, in: told) }
    #expect(progress.withLock { $0 } == [0, 4, 8])
    var again = try EncodingCache(at: url)
    let report = try again.encode(pictures, by: ToyAutoencoder(), model: model, in: context)
    #expect((report.kept, report.encoded) == (8, 4))
  }

  @Test func otherFilesAreRefusedAndLeftAsTheyAre() throws {
    let folder = try TemporaryFolder()
    let weights = folder.url.appending(path: "model.safetensors")
    try SafetensorsWriter.write(["a": Tensor([1])], metadata: ["format": "pt"], to: weights)
    let text = try folder.write("text.safetensors", "no tensors here")
    for url in [weights, text] {
      let before = try Data(contentsOf: url)
      let error = #expect(throws: TrainingDataError.self) { try EncodingCache(at: url) }
      #expect(try #require(error).description.contains("give another name, or delete it"))
      #expect(try Data(contentsOf: url) == before)
    }
    let url = folder.url.appending(path: "cache.safetensors")
    var cache = try EncodingCache(at: url)
    _ = try cache.encode(order(3).framedPictures(), by: ToyAutoencoder(), model: model, in: context)
    let whole = try Data(contentsOf: url)
    for length in [0, 7, 100, whole.count - 1] {
      try whole.prefix(length).write(to: url)
      #expect(throws: TrainingDataError.self) { try EncodingCache(at: url) }
    }
    // An infinity among the numbers.
    var damaged = whole
    damaged.replaceSubrange(whole.count - 4..<whole.count, with: [0, 0, 0x80, 0x7F])
    try damaged.write(to: url)
    let reopened = try EncodingCache(at: url)
    #expect(throws: TrainingDataError.self) { for picture in try order(3).framedPictures() { _ = try reopened.encoded([picture]) } }
  }

  @Test func aFileThatCannotBeWrittenIsAnError() throws {
    var cache = try EncodingCache(at: URL(filePath: "/proc/none/cache.safetensors"))
    #expect(throws: FileWriteError.self) { try cache.encode(order(1).framedPictures(), by: ToyAutoencoder(), model: model, in: context) }
  }
}
