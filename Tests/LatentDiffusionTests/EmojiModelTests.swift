import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// The embedded model draws what diffusers draws with it: `reference/` in its folder holds diffusers' own results.
@Suite struct EmojiModelTests {
  struct Cases: Decodable { let cases: [Case] }

  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let file: String
    let prompt: String
    let negative_prompt: String?
    let seed: UInt64
    let steps: Int
    let guidance: Double
    let scheduler: String
    let width: Int
    let height: Int
    var testDescription: String { file }
  }

  static let cases: [Case] = {
    let data = try? Data(contentsOf: EmojiModel.folder().appending(path: "reference/cases.json"))
    return data.flatMap { try? JSONDecoder().decode(Cases.self, from: $0).cases } ?? []
  }()

  @Test func hasReferences() { #expect(Self.cases.count >= 4) }

  @Test(.compares("The embedded model", in: .tasks, with: "diffusers", unit: .deviation), arguments: cases) func drawsWhatDiffusersDraws(
    _ reference: Case
  ) async throws {
    let folder = try EmojiModel.folder()
    var model = try StableDiffusion.load(from: folder)
    #expect(model.reports.values.allSatisfy { $0.unused.isEmpty })
    try model.use(SchedulerKind(named: reference.scheduler))
    var request = GenerationRequest(Prompt(reference.prompt), seed: reference.seed)
    request.negativePrompts = reference.negative_prompt.map { [Prompt($0)] } ?? []
    request.steps = reference.steps
    request.guidance = reference.guidance
    (request.width, request.height) = (reference.width, reference.height)
    let image = try #require(try await model.pipeline.images(for: request).first)

    let expected = try readTensors(folder.appending(path: "reference/\(reference.file).safetensors"))
    let latents = try #require(expected["latents"])
    let deviation = standardDeviation(latents.elements)
    let worst = compare(image.latents.channelsFirst().elements, latents.elements)
    expect(error: worst.largest / deviation, atMost: 1e-3, "latents: \(worst)")
    let pixels = try #require(expected["image"])
    let mean = zip(image.image.elements, pixels.elements).reduce(0) { $0 + abs($1.0 - $1.1) } / Float(pixels.count)
    #expect(mean * 255 < 0.05, "mean absolute difference of \(mean * 255) of 255")
    print("\(reference.file): latents \(worst.largest / deviation) of their deviation, picture \(mean * 255) of 255")
  }

  @Test func theNumberOfThreadsChangesNothing() async throws {
    let folder = try EmojiModel.folder()
    var results: [[Float]] = []
    for threads in [1, 2, 3] {
      let context = ExecutionContext(threads: threads)
      let model = try StableDiffusion.load(from: folder, in: context)
      var request = model.request("blue heart", seed: 7)
      request.steps = 4
      let image = try #require(try await model.pipeline.images(for: request, in: context).first)
      results.append(image.latents.elements + image.image.elements)
    }
    #expect(results[0] == results[1])
    #expect(results[0] == results[2])
  }
}
