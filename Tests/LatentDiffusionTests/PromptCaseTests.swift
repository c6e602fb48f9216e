import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Whole pictures of prompts as the webui and ComfyUI read them (`Tests/Fixtures/prompts/make_pictures.py`), and compel (`make_compel.py` there).
@Suite struct PromptCaseTests {
  private struct Case: Decodable {
    /// Nil: Stable Diffusion 1.
    var model: String?
    let profile, prompt: String
    let negative: String?
    let scheduler: String
    let steps: Int
    let guidance: Double
    let seed: UInt64
  }

  @Test(.compares("pictures of the webui's and ComfyUI's prompts", in: .tasks, with: "diffusers", "transformers"), arguments: 0..<6)
  func equalsThePrograms(_ number: Int) async throws { try await compare("pictures", number) }

  @Test(.compares("pictures of compel's prompts", in: .tasks, with: "diffusers", "compel"), arguments: 0..<5)
  func equalsCompel(_ number: Int) async throws { try await compare("compel-pictures", number) }

  private func compare(_ name: String, _ number: Int) async throws {
    let folder = fixtures.appending(path: "prompts")
    let given = try JSONDecoder().decode([Case].self, from: Data(contentsOf: folder.appending(path: "\(name).json")))[number]
    let expected = try #require(try readTensors(folder.appending(path: "\(name).safetensors"))["\(number)"]).asPictures
    let latents = try await images(given)[0].latents
    expectClose(latents, expected, tolerance: 1e-3, "\(given.prompt)")
  }

  private func images(_ given: Case, count: Int = 1, in context: ExecutionContext = ExecutionContext()) async throws -> [GeneratedImage] {
    var model = try StableDiffusion.load(from: ReferenceModel(given.model ?? "sd1").folder)
    try model.use(SchedulerKind(named: given.scheduler))
    var request = model.request(given.prompt, seed: given.seed)
    request.negativePrompts = given.negative.map { [Prompt($0)] } ?? []
    (request.steps, request.guidance, request.imagesPerPrompt) = (given.steps, given.guidance, count)
    (request.width, request.height) = (32, 32)
    try request.follow(#require(PromptProfile(rawValue: given.profile)))
    return try await model.pipeline.images(for: request, in: context)
  }

  /// A picture of a batch of the webui is that of its own seed.
  @Test func batchesHaveSeedsOfTheirOwn() async throws {
    var given = Case(profile: "webui", prompt: "a (cat:1.2)", negative: "", scheduler: "euler-a", steps: 3, guidance: 4, seed: 5)
    let batch = try await images(given, count: 2)
    #expect(batch.count == 2)
    for image in batch {
      let alone = try await images(given)[0]
      expectClose(image.latents, alone.latents, tolerance: 1e-4, "seed \(given.seed)")
      given = Case(profile: "webui", prompt: given.prompt, negative: "", scheduler: "euler-a", steps: 3, guidance: 4, seed: given.seed + 1)
    }
  }
}
