import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A run of diffusers' StableVideoDiffusionPipeline on a tiny model, as `Tests/Fixtures/svd/make_svd.py` describes it.
struct VideoCase: Decodable, Sendable, CustomTestStringConvertible {
  let name: String
  let image: String
  let files: [String]
  let width: Int
  let height: Int
  let steps: Int
  let seed: UInt64
  let timesteps: [Float]
  let draws: [[Int]]
  let frames: Int?
  let fps: Double?
  let motionBucket: Double?
  let noise: Double?
  let minGuidance: Double?
  let maxGuidance: Double?
  let decodeChunk: Int?
  let clips: Int?

  var testDescription: String { name }

  static let model = ReferenceModel("tiny", in: "svd")

  private struct File: Decodable {
    struct Resized: Decodable {
      let pictures: [String]
      let files: [String]
    }
    let pipelines: [VideoCase]
    let resized: Resized
  }

  private static func file() throws -> File {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(File.self, from: Data(contentsOf: model.folder.appending(path: "cases.json")))
  }

  static func all() throws -> [VideoCase] { try file().pipelines }

  /// The pictures that were resized, and what became of them.
  static func resized() throws -> (pictures: [String], tensors: [String: Tensor]) {
    let resized = try file().resized
    return (resized.pictures, try tensors(resized.files))
  }

  private static func tensors(_ files: [String]) throws -> [String: Tensor] {
    try files.reduce(into: [:]) { all, file in
      all.merge(try readTensors(model.folder.appending(path: "reference/\(file)"))) { first, _ in first }
    }
  }

  func reference() throws -> [String: Tensor] { try Self.tensors(files) }

  static func picture(_ name: String) throws -> Tensor {
    try Picture(contentsOf: fixtures.appending(path: name == "large.png" ? "svd/\(name)" : "models/inputs/\(name)")).tensor()
  }

  func task() throws -> ImageToVideo {
    // What a case leaves out has diffusers' value.
    var task = ImageToVideo(try Self.picture(image), frames: frames, framesDecodedTogether: decodeChunk)
    task.framesPerSecond = fps ?? task.framesPerSecond
    task.motionBucket = motionBucket ?? task.motionBucket
    task.noiseStrength = noise ?? task.noiseStrength
    task.minimumGuidance = minGuidance ?? task.minimumGuidance
    return task
  }

  func request(_ model: DiffusionModel) throws -> GenerationRequest {
    var request = model.request("")
    (request.task, request.width, request.height, request.steps, request.seed) = (try task(), width, height, steps, seed)
    request.imagesPerPrompt = clips ?? 1
    if let maxGuidance { request.guidance = maxGuidance }
    return request
  }
}

/// Clips of pictures, by Stable Video Diffusion, against diffusers.
@Suite struct VideoCaseTests {
  static let cases = (try? VideoCase.all()) ?? []
  private static func model(threads: Int? = nil) throws -> DiffusionModel {
    try DiffusionModel.load(from: VideoCase.model.folder, in: threads.map { ExecutionContext(threads: $0) } ?? ExecutionContext())
  }

  @Test func allCasesAreHere() {
    #expect(Self.cases.map(\.name) == ["usual", "chunks", "one-frame", "one-by-one", "unguided", "two-clips"])
  }

  @Test(.compares("Whole pipelines of Stable Video Diffusion", in: .tasks, with: "diffusers", unit: .deviation), arguments: cases)
  func drawsWhatDiffusersDraws(_ given: VideoCase) async throws {
    let model = try Self.model(), expected = try given.reference(), record = RecordedNoise.Record()
    #expect(model.warnings.isEmpty && model.reports.values.allSatisfy { $0.unused.isEmpty })
    var request = try given.request(model), timesteps: [Float] = []
    request.generator = { RecordedNoise(seed: $0, record: record) }
    func compareLatents(_ latents: Tensor, _ name: String) throws -> Float {
      let reference = try #require(expected[name]), difference = compare(latents.permuted([0, 1, 4, 2, 3]).elements, reference.elements)
      let relative = difference.largest / standardDeviation(reference.elements)
      expect(error: relative, atMost: PipelineCaseTests.tolerance, "\(name): \(difference)", detail: "image-to-video")
      return relative
    }
    let images = try await model.pipeline.images(for: request) { step in
      timesteps.append(step.timestep)
      if step.index == 0 { _ = try compareLatents(step.latents, "latents.0") }
    }
    #expect(compare(timesteps, given.timesteps).error <= 1e-6)
    #expect(record.draws.map(\.count) == given.draws.map { $0.reduce(1, *) }, "what was drawn")
    for (index, draw) in record.draws.enumerated() {
      #expect(compare(draw, try #require(expected["draw.\(index)"]).elements, absolute: 1e-5).isTolerable, "draw \(index)")
    }
    let (frames, clips) = (given.frames ?? 4, given.clips ?? 1)
    #expect(images.map(\.frame) == (0..<clips).flatMap { _ in 0..<frames })
    #expect(images.map(\.index) == (0..<clips).flatMap { Array(repeating: $0, count: frames) })
    let latents = Tensor.concatenated(images.map(\.latents), axis: 0)
    let final = try compareLatents(latents.reshaped(Shape([clips, frames] + latents.shape.dimensions.dropFirst())), "latents")
    let pictures = Tensor.concatenated(images.map(\.image), axis: 0).channelsFirst()
    let found = compare(pictures.elements, try #require(expected["frames"]).elements, absolute: 1e-3)
    #expect(found.isTolerable, "frames: \(found)")
    print("\(given.name): latents \(final) of their deviation, frames \(found.largest)")
  }

  /// What the image encoder is shown: blurred where a picture shrinks, and interpolated with aligned corners.
  @Test(.compares("Resizing of pictures for Stable Video Diffusion", in: .operations, with: "diffusers", unit: .absolute))
  func picturesAreResizedLikeDiffusers() throws {
    let (pictures, tensors) = try VideoCase.resized(), model = try Self.model()
    #expect(pictures.count == 4)
    for name in pictures {
      let picture = try VideoCase.picture(name), expected = try #require(tensors["\(name).resized"]).channelsLast()
      let resized = picture.map { 2 * $0 - 1 }.resizedWithAntialiasing(height: 224, width: 224).map { ($0 + 1) / 2 }
      let found = (0..<28).flatMap { row in (0..<28).map { resized.part(rows: 8 * row..<8 * row + 1, columns: 8 * $0..<8 * $0 + 1) } }
      let difference = compare(found.flatMap(\.elements), expected.elements, absolute: 2e-6)
      expect(error: difference.largest, atMost: 2e-6, "\(name): \(difference)", detail: name)
      var noise: any NoiseSource = TorchGenerator(seed: 0)
      let conditioner = try #require(model.pipeline.imageConditioners.first)
      let conditioning = try conditioner.condition(ImagePrompt([picture]), drawing: &noise, in: ExecutionContext())
      let embeds = try #require(tensors["\(name).embeds"]), seen = try #require(conditioning.prompt.contexts.first)
      expectClose(seen.reshaped(embeds.shape), embeds, tolerance: 1e-4, "\(name): what the encoder makes of it")
      #expect(conditioning.negative.contexts.first?.elements.allSatisfy { $0 == 0 } == true)
    }
  }

  @Test func theNumberOfThreadsChangesNothing() async throws {
    let given = try #require(Self.cases.first { $0.name == "chunks" })
    var results: [[UInt32]] = []
    for threads in [1, 2, 3] {
      let images = try await Self.model(threads: threads).pipeline.images(
        for: given.request(Self.model()), in: ExecutionContext(threads: threads))
      results.append(images.flatMap { ($0.latents.elements + $0.image.elements).map(\.bitPattern) })
    }
    #expect(results[0] == results[1] && results[0] == results[2])
  }

  /// A generation goes on from a place that was saved, and previews have all frames.
  @Test func placesAndPreviews() async throws {
    let given = try #require(Self.cases.first { $0.name == "usual" }), model = try Self.model()
    var request = try given.request(model)
    request.previewInterval = 1
    let whole = try await model.pipeline.images(for: request) { step in
      #expect(step.latents.shape == [1, 4, 4, 4, 4] && step.preview?.shape == [1, 4, 4, 4, 3])
    }
    var steps = try model.pipeline.generate(request).makeAsyncIterator()
    for _ in 0..<2 { _ = try await steps.next() }
    let checkpoint = try JSONDecoder().decode(Generation.Checkpoint.self, from: JSONEncoder().encode(#require(try steps.checkpoint)))
    var images: [GeneratedImage] = []
    for try await event in try model.pipeline.generate(request, from: checkpoint) {
      if case .image(let image) = event { images.append(image) }
    }
    #expect(images.flatMap(\.image.elements) == whole.flatMap(\.image.elements))
  }

  @Test func aCancelledClipEnds() async throws {
    let given = try #require(Self.cases.first { $0.name == "usual" }), model = try Self.model()
    var request = try given.request(model)
    (request.steps, request.width, request.height) = (1000, 128, 128)
    let asked = request
    let task = Task {
      for try await event in try model.pipeline.generate(asked) {
        if case .step(let step) = event, step.index == 1 { withUnsafeCurrentTask { $0?.cancel() } }
      }
    }
    await #expect(throws: CancellationError.self) { try await task.value }
  }

  @Test func requestsAreChecked() throws {
    let model = try Self.model(), picture = try VideoCase.picture("picture.png")
    func error(_ change: (inout GenerationRequest) -> Void) -> String {
      var request = model.request("")
      (request.task, request.width, request.height) = (ImageToVideo(picture, frames: 2), 32, 32)
      change(&request)
      do { _ = try model.pipeline.generate(request) } catch { return "\(error)" }
      return ""
    }
    #expect(error { _ in } == "")
    for frames in [0, -1, 4097, 1_000_000] {
      #expect(error { $0.task = ImageToVideo(picture, frames: frames) }.contains("must be from 1 to 4096"), "\(frames)")
    }
    #expect(error { $0.task = ImageToVideo(picture, framesPerSecond: 0) }.contains("frames a second"))
    #expect(error { $0.task = ImageToVideo(picture, motionBucket: .nan) }.contains("motion bucket"))
    #expect(error { $0.task = ImageToVideo(picture, noiseStrength: -1) }.contains("noise"))
    #expect(error { $0.task = ImageToVideo(picture, minimumGuidance: .infinity) }.contains("smallest guidance"))
    #expect(error { $0.task = ImageToVideo(picture, framesDecodedTogether: 0) }.contains("decoded together"))
    #expect(error { $0.task = ImageToVideo(picture.repeated(2)) }.contains("[1, height, width, 3]"))
    #expect(error { $0.guidanceRescale = 0.5 }.contains("rescaling"))
    #expect(error { ($0.width, $0.height) = (36, 32) }.contains("multiples of 8"))
    #expect(error { $0.task = TextToImage() }.contains("draws clips and is not made for text-to-image"))
    #expect(error { $0.task = TextToVideo() }.contains("takes 8 channels and is not made for text-to-video"))
    let long = error {
      $0.task = ImageToVideo(picture, frames: 4000)
      ($0.width, $0.height) = (512, 512)
    }
    #expect(long.contains("too many pixels"))
  }

  @Test func otherModelsMakeNoClipsOfPictures() throws {
    let picture = try VideoCase.picture("picture.png")
    for name in ["sd1", "edit8"] {
      let model = try DiffusionModel.load(from: ReferenceModel(name).folder)
      var request = model.request("")
      request.task = ImageToVideo(picture)
      #expect(throws: GenerationError.drawsPictures(task: "image-to-video")) { try model.pipeline.generate(request) }
    }
  }

  @Test func aPromptIsRefused() async throws {
    let model = try Self.model(), given = try #require(Self.cases.first)
    var request = try given.request(model)
    request.prompts = ["a cat"]
    await #expect(throws: ComponentError.self) { _ = try await model.pipeline.images(for: request) }
  }

  /// A plan follows passes and decodings with all frames; fewer that are decoded together take less.
  @Test func plansAndDescriptions() throws {
    let url = VideoCase.model.folder
    func peak(_ frames: Int, together: Int?) throws -> Int {
      var extent = GenerationExtent(size: PixelSize(width: 256, height: 256), encodesPicture: true)
      (extent.frames, extent.framesDecodedTogether) = (frames, together)
      return try MemoryPlan(for: url, extent, limit: nil).predictedPeakBytes
    }
    let (one, few, many) = (try peak(1, together: nil), try peak(16, together: 2), try peak(16, together: nil))
    #expect(one < few && few < many, "\(one), \(few), \(many)")
    #expect(try DiffusionModel.inspect(url).family.contains("Stable Video Diffusion"))
  }
}
