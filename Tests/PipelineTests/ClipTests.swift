import LatentDiffusionComponents
import LatentDiffusionTestSupport
import Pipeline
import Tensor
import Testing

/// A predictor of clips that sees each frame by itself.
private struct ToyClips: NoisePredictor {
  var base = ToyPredictor()
  var clip: ClipLength? { ClipLength(usual: 3, most: 5) }
  var inputChannels: Int { base.inputChannels }
  var outputChannels: Int { base.outputChannels }
  var sampleSize: Int? { base.sampleSize }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    let frames = latents.shape[1], pictures = latents.reshaped(Shape([latents.shape[0] * frames] + latents.shape.dimensions.suffix(3)))
    let found = try base.predict(pictures, timestep: timestep, conditioning: conditioning.repeated(frames), in: context)
    return found.reshaped(Shape([conditioning.rows] + latents.shape.dimensions.dropFirst()))
  }
}

/// Clips go through the same loop as pictures.
@Suite struct ClipTests {
  private static func pipeline(_ base: ToyPredictor = ToyPredictor(), stir: Float = 0) -> DiffusionPipeline {
    DiffusionPipeline(predictor: ToyClips(base: base), autoencoder: ToyAutoencoder(), conditioner: ToyConditioner()) {
      ToyScheduler(steps: $0, stir: stir)
    }
  }

  private static func video(frames: Int, width: Int, height: Int) -> Tensor {
    let all = (0..<frames).map { index in
      toyImage(width: width, height: height).map { ($0 + Float(index) / 10).truncatingRemainder(dividingBy: 1) }
    }
    return Tensor.concatenated(all, axis: 0).reshaped([1, frames, height, width, 3])
  }

  @Test func framesComeOneAfterTheOther() async throws {
    let predictor = ToyPredictor()
    var request = toyRequest("a", "b", task: TextToVideo(frames: 2))
    request.guidance = 1
    request.previewInterval = 1
    let images = try await Self.pipeline(predictor).images(for: request) { step in
      #expect(step.latents.shape == [2, 2, 5, 5, 4] && step.preview?.shape == [2, 2, 5, 5, 3])
    }
    #expect(images.map(\.index) == [0, 0, 1, 1] && images.map(\.frame) == [0, 1, 0, 1])
    #expect(images.map(\.prompt.text) == ["a", "a", "b", "b"])
    #expect(images.allSatisfy { $0.latents.shape == [1, 5, 5, 4] && $0.image.shape == [1, 20, 20, 3] })
    // Noise is drawn as [N, C, F, h, w].
    var generator = TorchGenerator(seed: 7)
    let noise = Tensor(generator.normal(2 * 4 * 2 * 25), shape: [2, 4, 2, 5, 5]).permuted([0, 2, 3, 4, 1])
    #expect(predictor.diary.passes[0].input.elements == (3 * noise).elements)
  }

  /// A predictor that sees each frame by itself predicts the same in any windows.
  @Test(arguments: [FrameWindows.Method.passes, .loopedPasses]) func windowsAreAveraged(_ method: FrameWindows.Method) async throws {
    var request = toyRequest("a", "b", task: TextToVideo(frames: 5))
    let whole = try await Self.pipeline().images(for: request)
    request.frameWindows = try FrameWindows(length: 3, stride: 2, method: method)
    for (a, b) in zip(whole, try await Self.pipeline().images(for: request)) {
      #expect(difference(a.latents.elements, b.latents.elements).value < 1e-5)
    }
    request.task = TextToVideo(frames: 9)
    #expect(try await Self.pipeline().images(for: request).count == 18)
    request.frameWindows = try FrameWindows(length: 3, method: .freeNoise)
    #expect(throws: ComponentError.unsupported(component: "This noise predictor", option: "windows of FreeNoise")) {
      try Self.pipeline().generate(request)
    }
  }

  /// What a scheduler draws has the same order.
  @Test func schedulersDrawForClips() async throws {
    var request = toyRequest("a", steps: 1, task: TextToVideo(frames: 2))
    request.guidance = 1
    request.noise = Tensor(shape: [1, 2, 5, 5, 4])
    let plain = try await Self.pipeline().images(for: request), stirred = try await Self.pipeline(stir: 0.5).images(for: request)
    var generator = TorchGenerator(seed: 7)
    let noise = Tensor(generator.normal(4 * 2 * 25), shape: [1, 4, 2, 5, 5]).permuted([0, 2, 3, 4, 1]).reshaped([2, 5, 5, 4])
    for (index, (a, b)) in zip(plain, stirred).enumerated() {
      let apart = difference((a.latents + 0.5 * noise.rows(index..<index + 1)).elements, b.latents.elements)
      #expect(apart.value < 1e-6, "frame \(index) at \(apart.index)")
    }
  }

  @Test func aVideoIsEncodedFrameByFrame() async throws {
    let predictor = ToyPredictor()
    var request = toyRequest("a", task: VideoToVideo(Self.video(frames: 3, width: 21, height: 12), strength: 0.5))
    request.guidance = 1
    let images = try await Self.pipeline(predictor).images(for: request)
    #expect(images.count == 3 && images[0].image.shape == [1, 12, 20, 3])
    #expect(predictor.diary.passes.map(\.timestep) == [980, 970])
    // Numbers for the frames' latents, then for the noise, both frame by frame.
    var generator = TorchGenerator(seed: 7)
    let frames = images.map { _ in Shape([1, 3, 5, 4]) }
    _ = generator.normal(frames.count * frames[0].count)
    let noise = generator.normal(channelsLast: [3, 3, 5, 4])
    request.noise = noise.reshaped([1, 3, 3, 5, 4])
    let again = try await Self.pipeline().images(for: request)
    #expect(again.map(\.latents.elements) == images.map(\.latents.elements))
  }

  @Test func clipsGoOnFromTheirPlaces() async throws {
    let request = toyRequest("a", task: TextToVideo())
    let whole = try await Self.pipeline().images(for: request)
    #expect(whole.count == 3)
    var steps = try Self.pipeline().generate(request).makeAsyncIterator()
    for _ in 0..<2 { _ = try await steps.next() }
    let checkpoint = try #require(try steps.checkpoint)
    var found: [[Float]] = []
    for try await event in try Self.pipeline().generate(request, from: checkpoint) {
      if case .image(let image) = event { found.append(image.latents.elements) }
    }
    #expect(found == whole.map(\.latents.elements))
  }

  @Test func whatCannotBeIsSaid() throws {
    func error(_ task: any GenerationTask, by pipeline: DiffusionPipeline = Self.pipeline()) -> GenerationError? {
      do { _ = try pipeline.generate(toyRequest("a", task: task)) } catch { return error as? GenerationError }
      return nil
    }
    for frames in [0, -3, 6, 1_000_000] {
      #expect(error(TextToVideo(frames: frames)) == .outOfRange(name: "The number of frames", value: "\(frames)", allowed: "from 1 to 5"))
    }
    #expect(error(TextToImage()) == .drawsClips(task: "text-to-image"))
    #expect(error(TextToVideo(), by: toyPipeline()) == .drawsPictures(task: "text-to-video"))
    for shape: Shape in [[1, 8, 8, 3], [1, 0, 8, 8, 3], [1, 2, 8, 8, 4]] {
      #expect(error(VideoToVideo(Tensor(shape: shape))) != nil, "\(shape)")
    }
    #expect(error(VideoToVideo(Tensor(repeating: .nan, shape: [1, 2, 8, 8, 3]))) == .notFinite(name: "The video"))
    #expect(error(VideoToVideo(Self.video(frames: 6, width: 8, height: 8))) != nil)
    // Frames count as pixels.
    var large = toyRequest("a", task: TextToVideo(frames: 5))
    (large.width, large.height) = (2048, 2048)
    #expect(throws: GenerationError.tooLarge(width: 2048, height: 2048, images: 5)) { try Self.pipeline().generate(large) }
    var noisy = toyRequest("a", task: TextToVideo(frames: 2))
    noisy.noise = Tensor(shape: [1, 5, 5, 4])
    #expect(throws: GenerationError.self) { try Self.pipeline().generate(noisy) }
  }
}
