import LatentDiffusionComponents
import Pipeline
import Tensor
import Testing

@Suite struct TaskTests {
  /// Timesteps that are left, by steps, strength and order; as diffusers' `get_timesteps` leaves them.
  @Test(arguments: [(4, 1.0, 1, 4), (4, 0.99, 1, 3), (50, 0.8, 1, 40), (100, 0.29, 1, 28), (10, 0.25, 2, 4), (3, 0.5, 2, 2)])
  func strengthLeavesOutWholeSteps(steps: Int, strength: Double, order: Int, left: Int) async throws {
    let predictor = ToyPredictor()
    let task = GenerationTask.imageToImage(.pixels(toyImage(width: 8, height: 8)), strength: strength)
    _ = try await toyPipeline(predictor, order: order).images(for: toyRequest("a", steps: steps, task: task))
    let all = (0..<steps * order).map { Float(1000 - 10 * $0) }
    #expect(predictor.diary.passes.map(\.timestep) == Array(all.suffix(left)))
  }

  @Test func imageToImageStartsFromTheEncodedPicture() async throws {
    let image = toyImage(width: 20, height: 12)
    let predictor = ToyPredictor()
    let request = toyRequest("a", task: .imageToImage(.pixels(image), strength: 0.5))
    _ = try await toyPipeline(predictor).images(for: request)
    // First the posterior's noise is drawn, then the loop's.
    var generator = TorchGenerator(seed: 7)
    let posterior = try ToyAutoencoder().encode(image.map { 2 * $0 - 1 }, in: ExecutionContext())
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
    var request = toyRequest("a", task: .imageToImage(.latents(image.latents), strength: 0.25))
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
      for: toyRequest("a", task: .imageToImage(.pixels(toyImage(width: 23, height: 13)))))[0]
    #expect(image.image.shape == [1, 12, 20, 3])
    var request = toyRequest("a", task: .imageToImage(.pixels(toyImage(width: 23, height: 13))))
    (request.width, request.height) = (32, 16)
    #expect(try await toyPipeline().images(for: request)[0].image.shape == [1, 16, 32, 3])
  }

  @Test func blendingEndsWithThePictureOutsideTheMask() async throws {
    let image = toyImage(width: 16, height: 8)
    let mask = Tensor((0..<8 * 16).map { $0 % 16 < 8 ? 0 : 1 }, shape: [1, 8, 16, 1])
    let result = try await toyPipeline().images(for: toyRequest("a", task: .inpaint(Inpainting(image: image, mask: mask))))[0]
    var generator = TorchGenerator(seed: 7)
    let posterior = try ToyAutoencoder().encode(image.map { 2 * $0 - 1 }, in: ExecutionContext())
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
    let task = GenerationTask.inpaint(Inpainting(image: image, mask: mask, keepsPixelsOutsideMask: true))
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
    let result = try await toyPipeline().images(for: toyRequest("a", task: .inpaint(task)))[0].image
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
    var request = toyRequest("a", steps: 1, task: .edit(image, imageGuidance: 1.5))
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
    let task = GenerationTask.edit(toyImage(width: 8, height: 8), imageGuidance: 0.9)
    _ = try await toyPipeline(predictor).images(for: toyRequest("a", steps: 1, task: task))
    #expect(predictor.diary.passes.map(\.shape) == [[1, 2, 2, 8]])
  }
}

@Suite struct PreviewTests {
  @Test func aPreviewIsThePictureWhereTheDecoderIsAffine() async throws {
    var request = toyRequest("a", steps: 4)
    request.previewInterval = 2
    var previews: [Int] = []
    for try await case .step(let step) in try toyPipeline().generate(request) {
      guard let preview = step.preview else { continue }
      previews.append(step.index)
      #expect(preview.shape == [1, 5, 5, 3])
    }
    #expect(previews == [1, 3])
    // At this scale nothing leaves 0…1 and is clamped, so the toy is affine.
    let autoencoder = ToyAutoencoder(latentScale: 20)
    let fitted = try LatentPreview(fittedTo: autoencoder, in: ExecutionContext())
    var generator = TorchGenerator(seed: 1)
    let latents = generator.normal(channelsLast: [2, 3, 3, 4])
    let decoded = try await toyPipeline(autoencoder: autoencoder).decode(latents).elements
    let preview = fitted.image(of: latents).elements
    for n in 0..<2 {
      for pixel in 0..<9 {
        for k in 0..<3 {
          let there = decoded[((n * 12 + pixel / 3 * 4) * 12 + pixel % 3 * 4) * 3 + k]
          let here = preview[(n * 9 + pixel) * 3 + k]
          #expect(abs(there - here) < 1e-4, "\(n), \(pixel), \(k): \(here), \(there)")
        }
      }
    }
  }
}
