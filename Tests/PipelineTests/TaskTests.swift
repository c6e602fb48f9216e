import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Pipeline
import Synchronization
import Tensor
import Testing

@Suite struct TaskTests {
  /// Timesteps that are left, by steps, strength and order; as diffusers' `get_timesteps` leaves them.
  @Test(arguments: [(4, 1.0, 1, 4), (4, 0.99, 1, 3), (50, 0.8, 1, 40), (100, 0.29, 1, 28), (10, 0.25, 2, 4), (3, 0.5, 2, 2)])
  func strengthLeavesOutWholeSteps(steps: Int, strength: Double, order: Int, left: Int) async throws {
    let predictor = ToyPredictor()
    let task = ImageToImage(.pixels(toyImage(width: 8, height: 8)), strength: strength)
    _ = try await toyPipeline(predictor, order: order).images(for: toyRequest("a", steps: steps, task: task))
    let all = (0..<steps * order).map { Float(1000 - 10 * $0) }
    #expect(predictor.diary.passes.map(\.timestep) == Array(all.suffix(left)))
  }

  @Test func imageToImageStartsFromTheEncodedPicture() async throws {
    let image = toyImage(width: 20, height: 12)
    let predictor = ToyPredictor()
    let request = toyRequest("a", task: ImageToImage(.pixels(image), strength: 0.5))
    _ = try await toyPipeline(predictor).images(for: request)
    // First the posterior's noise is drawn, then the loop's.
    var generator = TorchGenerator(seed: 7)
    let posterior = try #require(ToyAutoencoder().encode(image.map { 2 * $0 - 1 }, in: ExecutionContext()).gaussian)
    let latents = 0.5 * posterior.sample(noise: generator.normal(channelsLast: [1, 3, 5, 4]))
    let noised = latents + 2 * generator.normal(channelsLast: [1, 3, 5, 4])
    let apart = difference(predictor.diary.passes[0].input.rows(0..<1).elements, (noised / 3).elements)
    #expect(apart.value < 1e-6, "at \(apart.index)")
  }

  @Test func latentsComeOutAndGoIn() async throws {
    let image = try await toyPipeline().images(for: toyRequest("a"))[0]
    let decoded = try await toyPipeline().decode(image.latents)
    #expect(decoded.elements == image.image.elements)
    let predictor = ToyPredictor()
    var request = toyRequest("a", task: ImageToImage(.latents(image.latents), strength: 0.25))
    request.noise = Tensor(shape: [1, 5, 5, 4])
    _ = try await toyPipeline(predictor).images(for: request)
    #expect(predictor.diary.passes[0].input.rows(0..<1).elements == (image.latents / 4).elements)
  }

  @Test func picturesGoInAndComeOut() async throws {
    // The toy's matrices make of a grey of value v another grey; what matters here is scale and range.
    let latents = try await toyPipeline().encode(toyImage(width: 8, height: 8))
    let mode = try ToyAutoencoder().encode(toyImage(width: 8, height: 8).map { 2 * $0 - 1 }, in: ExecutionContext()).mode
    #expect(latents.elements == (0.5 * mode).elements)
    await #expect(throws: GenerationError.indivisibleSize(width: 9, height: 8, multiple: 4)) {
      _ = try await toyPipeline().encode(toyImage(width: 9, height: 8))
    }
  }

  @Test func picturesOfOtherSizesAreResampledToMultiples() async throws {
    let image = try await toyPipeline().images(
      for: toyRequest("a", task: ImageToImage(.pixels(toyImage(width: 23, height: 13)))))[0]
    #expect(image.image.shape == [1, 12, 20, 3])
    var request = toyRequest("a", task: ImageToImage(.pixels(toyImage(width: 23, height: 13))))
    (request.width, request.height) = (32, 16)
    #expect(try await toyPipeline().images(for: request)[0].image.shape == [1, 16, 32, 3])
  }

  @Test func blendingEndsWithThePictureOutsideTheMask() async throws {
    let image = toyImage(width: 16, height: 8)
    let mask = Tensor((0..<8 * 16).map { $0 % 16 < 8 ? 0 : 1 }, shape: [1, 8, 16, 1])
    let result = try await toyPipeline().images(for: toyRequest("a", task: Inpainting(image: image, mask: mask)))[0]
    var generator = TorchGenerator(seed: 7)
    let posterior = try #require(ToyAutoencoder().encode(image.map { 2 * $0 - 1 }, in: ExecutionContext()).gaussian)
    let original = 0.5 * posterior.sample(noise: generator.normal(channelsLast: [1, 2, 4, 4]))
    for (index, (found, kept)) in Swift.zip(result.latents.elements, original.elements).enumerated() {
      let isOutside = index / 4 % 4 < 2
      #expect((found == kept) == isOutside, "element \(index)")
    }
  }

  @Test(arguments: [4, 9], [(16, 8), (19, 10)]) func pixelsOutsideTheMaskComeBackExactly(
    channels: Int, size: (width: Int, height: Int)
  ) async throws {
    let image = toyImage(width: size.width, height: size.height)
    let mask = toyMask(width: size.width, height: size.height)
    let task = Inpainting(image: image, mask: mask, keepsPixelsOutsideMask: true)
    let pipeline = toyPipeline(ToyPredictor(inputChannels: channels))
    let result = try await pipeline.images(for: toyRequest("a", task: task))[0].image
    #expect(result.shape == image.shape)
    var changed = 0
    for (index, (found, original)) in Swift.zip(result.elements, image.elements).enumerated() {
      if mask.elements[index / 3] < 0.5 {
        #expect(found.bitPattern == original.bitPattern, "element \(index)")
      } else if found != original {
        changed += 1
      }
    }
    #expect(changed > 50)
  }

  @Test func outpaintingKeepsThePictureInItsPlace() async throws {
    let image = toyImage(width: 10, height: 6)
    let task = try Inpainting.outpainting(image, left: 3, right: 2, top: 1, bottom: 4)
    #expect(task.image.shape == [1, 11, 15, 3])
    let result = try await toyPipeline().images(for: toyRequest("a", task: task))[0].image
    #expect(result.shape == [1, 11, 15, 3])
    for y in 0..<6 {
      for x in 0..<10 {
        for k in 0..<3 {
          #expect(result.elements[((y + 1) * 15 + x + 3) * 3 + k] == image.elements[(y * 10 + x) * 3 + k], "\(x), \(y), \(k)")
        }
      }
    }
    #expect(task.mask.elements.reduce(0, +) == 11 * 15 - 60)
  }

  @Test func outpaintingRefusesImpossibleBorders() {
    let image = toyImage(width: 8, height: 8)
    #expect(throws: GenerationError.self) { _ = try Inpainting.outpainting(image) }
    #expect(throws: GenerationError.self) { _ = try Inpainting.outpainting(image, left: -8, right: 16) }
    #expect(throws: GenerationError.self) { _ = try Inpainting.outpainting(image, left: .max, right: .max) }
    #expect(throws: GenerationError.tooLarge(width: 100_008, height: 100_008, images: 1)) {
      _ = try Inpainting.outpainting(image, left: 100_000, top: 100_000)
    }
  }

  @Test func editingTakesThreeRowsAndTwoGuidances() async throws {
    let image = toyImage(width: 8, height: 8)
    let predictor = ToyPredictor(inputChannels: 8)
    var request = toyRequest("a", steps: 1, task: InstructionEditing(image, imageGuidance: 1.5))
    request.negativePrompts = ["b"]
    let result = try await toyPipeline(predictor).images(for: request)[0]
    let pass = try #require(predictor.diary.passes.first)
    #expect(pass.shape == [3, 2, 2, 8])
    #expect(pass.hiddenStates == ["a", "b", "b"].flatMap(ToyConditioner.states))
    // The picture's latents are the posterior's mode, not scaled, and absent from the third row.
    let mode = try ToyAutoencoder().encode(image.map { 2 * $0 - 1 }, in: ExecutionContext()).mode
    #expect(pass.input.channels(4..<8).elements == mode.elements + mode.elements + [Float](repeating: 0, count: 16))
    let prediction = try ToyPredictor(inputChannels: 8).predict(
      pass.input, timestep: 1000, conditioning: Conditioning(hiddenStates: Tensor(pass.hiddenStates, shape: [3, 2, 3])),
      in: ExecutionContext())
    let (text, picture, neither) = (prediction.rows(0..<1), prediction.rows(1..<2), prediction.rows(2..<3))
    let guided = neither + 7.5 * (text - picture) + 1.5 * (picture - neither)
    let apart = difference(result.latents.elements, (pass.input.rows(0..<1).channels(0..<4) - guided).elements)
    #expect(apart.value < 1e-5, "at \(apart.index)")
  }

  @Test func editingWithoutImageGuidanceTakesOneRow() async throws {
    let predictor = ToyPredictor(inputChannels: 8)
    let task = InstructionEditing(toyImage(width: 8, height: 8), imageGuidance: 0.9)
    _ = try await toyPipeline(predictor).images(for: toyRequest("a", steps: 1, task: task))
    #expect(predictor.diary.passes.map(\.shape) == [[1, 2, 2, 8]])
  }
}

/// A conditioner that reads four bytes of a prompt.
private struct ShortConditioner: TextConditioner {
  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let prompts = request.prompts
    let beginnings = prompts.map { Prompt(String($0.text.prefix(4))) }
    return try ToyConditioner().condition(ConditioningRequest(beginnings, size: request.size), in: context)
  }

  func truncation(of prompt: Prompt) -> PromptTruncation? {
    let count = prompt.text.count
    return count > 4 ? PromptTruncation(prompt: prompt, dropped: String(prompt.text.dropFirst(4)), tokens: count, limit: 4) : nil
  }
}

@Suite struct TellingTests {
  /// What is cut off a prompt is told by every step and every picture, each text once; negative ones only where they count.
  @Test func cutPromptsAreTold() async throws {
    var pipeline = toyPipeline()
    pipeline.conditioner = ShortConditioner()
    var request = toyRequest("abcdef", "abc", "abcdef", steps: 2)
    request.negativePrompts = ["ghijk"]
    func told() async throws -> [[String]] {
      var told: [[String]] = []
      for try await event in try pipeline.generate(request) {
        switch event {
        case .step(let step): told.append(step.truncations.map(\.dropped))
        case .image(let image): told.append(image.truncations.map(\.dropped))
        }
      }
      return told
    }
    #expect(try await told() == Array(repeating: ["ef", "k"], count: 5))
    request.guidance = 1
    #expect(try await told() == Array(repeating: ["ef"], count: 5))
    request.prompts = ["abc"]
    #expect(try await told() == [[], [], []])
  }

  @Test func phasesAreToldInTheirOrder() async throws {
    let told = Mutex<[GenerationPhase]>([])
    var request = toyRequest("a", steps: 2, task: ImageToImage(.pixels(toyImage(width: 8, height: 8)), strength: 1))
    request.imagesPerPrompt = 2
    _ = try await toyPipeline().images(for: request, phase: { phase in told.withLock { $0.append(phase) } })
    #expect(
      told.withLock { $0 } == [
        .encodingPicture(done: 0, count: 1), .encodingPrompts, .denoising, .decoding(done: 0, count: 2), .decoding(done: 1, count: 2),
      ])
  }
}

/// Keeps the picture that it is given.
private struct KeepingAutoencoder: LatentAutoencoder {
  private final class Kept: Sendable { let picture = Mutex<Tensor?>(nil) }
  private let kept = Kept()
  let spatialScale = 1
  let latentChannels = 4
  let latentScale: Float = 1
  /// -1…1.
  var picture: Tensor? { kept.picture.withLock { $0 } }

  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    kept.picture.withLock { $0 = image }
    let latents = Tensor(shape: Shape(image.shape.dimensions.dropLast() + [4]))
    return .distribution(DiagonalGaussian(mean: latents, logVariance: latents))
  }

  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    Tensor(shape: Shape(latents.shape.dimensions.dropLast() + [3]))
  }
}

@Suite struct ResizeModeTests {
  /// The pictures that reach the autoencoder are those that diffusers' image processor makes.
  @Test(.compares("Pictures resized for a task", in: .tasks, with: "diffusers", "pillow", unit: .absolute))
  func picturesAreResizedAsDiffusersDoes() async throws {
    let file = try SafetensorsFile(fixtures.appending(path: "pipeline/resize-modes.safetensors"))
    let modes: [String: ResizeMode] = ["default": .stretch, "crop": .crop, "fill": .fill]
    var count = 0
    for (name, stored) in file.tensors.sorted(by: { $0.key < $1.key }) where name != "picture" {
      let words = name.split(separator: " ")
      let mode = try #require(modes[String(words[0])])
      let sides = words[1].split(separator: "x").compactMap { Int($0) }
      let picture = try file.tensor("picture", shape: [1, 20, 30, 3]).decoded()
      let autoencoder = KeepingAutoencoder()
      var pipeline = toyPipeline()
      pipeline.autoencoder = autoencoder
      var request = toyRequest("a", steps: 1, task: ImageToImage(.pixels(picture), strength: 1))
      (request.width, request.height, request.resizeMode) = (sides[0], sides[1], mode)
      _ = try await pipeline.images(for: request)
      let found = try #require(autoencoder.picture).map { ($0 + 1) / 2 }
      let expected = try file.tensor(name, shape: stored.shape).decoded()
      #expect(found.shape == expected.shape)
      let difference = compare(found.elements, expected.elements, absolute: 1e-6)
      // Where an odd pixel is left, diffusers leaves a black line at the far side, and we repeat the edge.
      let isLeft = mode == .fill && expected.elements.contains(0) && !difference.isTolerable
      if !isLeft { expect(error: difference.largest, atMost: 1e-6, "\(name): \(difference)") }
      count += isLeft ? 0 : 1
    }
    #expect(count >= 13)
  }

  /// A mask of another size is resampled to the size in the model.
  @Test func masksOfOtherSizesAreResampled() async throws {
    let image = toyImage(width: 16, height: 16)
    let half = Tensor((0..<64).map { $0 % 8 < 4 ? 0 : 1 }, shape: [1, 8, 8, 1])
    let whole = Tensor((0..<256).map { $0 % 16 < 8 ? 0 : 1 }, shape: [1, 16, 16, 1])
    var pictures: [[Float]] = []
    for mask in [half, whole] {
      for keeps in [false, true] {
        let task = Inpainting(image: image, mask: mask, strength: 0.5, keepsPixelsOutsideMask: keeps)
        pictures.append(try await toyPipeline().images(for: toyRequest("a", steps: 4, task: task))[0].image.elements)
      }
    }
    #expect(pictures[0] == pictures[2] && pictures[1] == pictures[3] && pictures[0] != pictures[1])
  }
}

@Suite struct PreviewTests {
  @Test func aPreviewIsThePictureWhereTheDecoderIsAffine() async throws {
    var request = toyRequest("a", steps: 4)
    request.previewInterval = 2
    var previews: [Int] = []
    for try await case .step(let step) in try toyPipeline().generate(request) {
      // What a program decodes that stops early.
      #expect(step.predictedOriginal?.shape == step.latents.shape)
      guard let preview = step.preview else { continue }
      previews.append(step.index)
      #expect(preview.shape == [1, 5, 5, 3])
    }
    #expect(previews == [1, 3])
    // The toy is affine, but only in the three directions in which its encoder writes.
    let fitted = try LatentPreview(fittedTo: ToyAutoencoder(), in: ExecutionContext())
    let latents = try await toyPipeline().encode(toyImage(width: 12, height: 12))
    let decoded = try await toyPipeline().decode(latents).elements
    let preview = fitted.image(of: latents).elements
    for pixel in 0..<9 {
      for k in 0..<3 {
        let there = decoded[(pixel / 3 * 4 * 12 + pixel % 3 * 4) * 3 + k], here = preview[pixel * 3 + k]
        #expect(abs(there - here) < 0.01, "\(pixel), \(k): \(here), \(there)")
      }
    }
  }

  /// Where decoding is cheap, a preview is the picture that would come out, averaged.
  @Test func aDecodedPreviewIsThePicture() async throws {
    var pipeline = toyPipeline()
    pipeline.decodesPreviews = true
    var request = toyRequest("a", steps: 2)
    request.previewInterval = 1
    var last: Tensor?
    for try await case .step(let step) in try pipeline.generate(request) {
      // The toy's scheduler says what the clean latents look like from here.
      last = step.preview
      #expect(step.preview?.shape == [1, 5, 5, 3])
    }
    #expect(last.map { $0.elements.allSatisfy { (0...1).contains($0) } } == true)
  }
}
