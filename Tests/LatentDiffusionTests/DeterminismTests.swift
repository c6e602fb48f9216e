import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// The same request gives the same picture, whatever computes it and whatever is computed beside it.
@Suite struct DeterminismTests {
  private func request(_ prompts: [Prompt], noise: Tensor) -> GenerationRequest {
    var request = GenerationRequest(prompts: prompts, seed: 4)
    request.steps = 6
    request.negativePrompts = ["blurred, grey"]
    request.noise = noise
    return request
  }

  @Test func aBatchIsItsPicturesOneByOne() async throws {
    let model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    let prompts: [Prompt] = ["a photo of the cat", "Two boats in the rain"]
    var numbers = Numbers(seed: 9)
    let noise = numbers.tensor([2, 8, 8, 4])
    let together = try await model.pipeline.images(for: request(prompts, noise: noise))
    #expect(together.count == 2)
    for (index, prompt) in prompts.enumerated() {
      let alone = try await model.pipeline.images(for: request([prompt], noise: noise.rows(index..<index + 1)))
      let image = try #require(alone.first)
      // Products of more rows are cut into other blocks: sums may be rounded otherwise.
      let latents = expectClose(together[index].latents, image.latents, tolerance: 2e-5, "\(prompt.text): latents")
      expectClose(together[index].image, image.image, tolerance: 2e-5, "\(prompt.text): image")
      print("\(prompt.text): in a batch and alone, \(latents)")
    }
  }

  /// A scheduler that draws numbers and one that draws none; the task encodes a picture too.
  @Test(arguments: [SchedulerKind.eulerAncestral, .pndm]) func theNumberOfThreadsChangesNothing(_ kind: SchedulerKind) async throws {
    var numbers = Numbers(seed: 3)
    let picture = Tensor(numbers.uniform(32 * 40 * 3, in: 0...1), shape: [1, 32, 40, 3])
    var results: [[UInt32]] = []
    for threads in [1, 2, 3] {
      let context = ExecutionContext(threads: threads)
      var model = try StableDiffusion.load(from: ReferenceModel("sd1").folder, in: context)
      try model.use(kind)
      var request = GenerationRequest("a photo of the cat", seed: 5)
      request.task = ImageToImage(.pixels(picture), strength: 0.7)
      request.steps = 4
      let image = try #require(try await model.pipeline.images(for: request, in: context).first)
      results.append((image.latents.elements + image.image.elements).map(\.bitPattern))
    }
    #expect(results[0] == results[1])
    #expect(results[0] == results[2])
  }
}
