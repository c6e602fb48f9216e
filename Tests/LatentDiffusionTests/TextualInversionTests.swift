import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Learned words on a tiny model, against diffusers' `load_textual_inversion`: `Tests/Fixtures/adapters/make_adapters.py`.
@Suite struct TextualInversionTests {
  private static let folder = fixtures.appending(path: "adapters")
  private static let model = ReferenceModel("sd1").folder

  private static func word(_ file: String, name: String? = nil) throws -> TextualInversion {
    try TextualInversion(contentsOf: folder.appending(path: "\(file).safetensors"), name: name)
  }

  @Test(
    .compares("Textual inversion", in: .adapters, with: "diffusers", unit: .deviation),
    arguments: [("embedding", String?.none), ("embedding-webui", "moon-cat")])
  func drawsWhatDiffusersDraws(_ file: String, _ name: String?) async throws {
    let model = try DiffusionModel.load(from: Self.model, embeddings: [Self.word(file, name: name), Self.word("embedding-diffusers")])
    try await Self.expectDrawn("embedding", "a photo of Moon-Cat and <one> in the rain", model)
  }

  /// A file for both text encoders of SDXL.
  @Test(.compares("Textual inversion", in: .adapters, with: "diffusers", unit: .deviation))
  func drawsWhatDiffusersDrawsWithTwoTextEncoders() async throws {
    let model = try DiffusionModel.load(from: ReferenceModel("sdxl").folder, embeddings: [Self.word("xl-embedding", name: "moon-cat")])
    try await Self.expectDrawn("xl-embedding", "a photo of moon-cat in the rain", model)
  }

  @Test func aTextEncoderThatDoesNotLearnTheWordIsTold() throws {
    let folder = try TemporaryFolder(), file = folder.url.appending(path: "word.safetensors")
    for (width, other) in [(16, "text_encoder_2"), (24, "text_encoder")] {
      try SafetensorsWriter.write(["moon-dog": Tensor(repeating: 1, shape: [2, width])], to: file)
      let model = try DiffusionModel.load(from: ReferenceModel("sdxl").folder, embeddings: [TextualInversion(contentsOf: file)])
      #expect(model.warnings == [.unlearned(word: "moon-dog", path: file.path(percentEncoded: false), encoders: [other])])
    }
    #expect(try DiffusionModel.load(from: Self.model, embeddings: [Self.word("embedding")]).warnings == [])
  }

  private static func expectDrawn(_ name: String, _ prompt: Prompt, _ model: DiffusionModel) async throws {
    var request = model.request(prompt, seed: 0)
    (request.steps, request.guidance, request.width, request.height) = (4, 5, 32, 32)
    request.negativePrompts = ["blurred, grey"]
    let found = try #require(try await model.pipeline.images(for: request).first).latents.channelsFirst()
    let expected = try #require(try readTensors(folder.appending(path: "reference.safetensors"))["\(name).latents"])
    let difference = compare(found.elements, expected.elements), deviation = standardDeviation(expected.elements)
    print("\(name): \(difference.largest / deviation) of the latents' deviation")
    expect(error: difference.largest / deviation, atMost: 3e-4, "\(difference)")
  }

  @Test func aWordHasATokenForEachVector() throws {
    let model = try DiffusionModel.load(from: Self.model, embeddings: [Self.word("embedding")])
    let tokenizer = try #require(model.tokenizer), plain = try #require(try DiffusionModel.load(from: Self.model).tokenizer)
    #expect(tokenizer.encode("a moon-cat,") == plain.encode("a").dropLast() + [914, 915, 916] + plain.encode(",").dropFirst())
    #expect(tokenizer.tokens("moon-cat") == ["moon-cat", "moon-cat_1", "moon-cat_2"] && tokenizer.encode("rain") == plain.encode("rain"))
    #expect(try Self.word("embedding").name == "moon-cat" && Self.word("embedding-webui").name == "embedding-webui")
  }

  @Test func whatDoesNotFitIsAnError() throws {
    let folder = try TemporaryFolder()
    func expectError(_ tensors: [String: Tensor], name: String? = nil, says parts: String...) throws {
      let file = folder.url.appending(path: "word.safetensors")
      try SafetensorsWriter.write(tensors, to: file)
      do {
        _ = try DiffusionModel.load(from: Self.model, embeddings: [TextualInversion(contentsOf: file, name: name)])
        Issue.record("no error that says \(parts)")
      } catch { for part in parts { #expect("\(error)".contains(part), "\(error)") } }
    }
    let good = Tensor(repeating: 1, shape: [2, 16])
    try expectError(["x": Tensor(repeating: 1, shape: [2, 768])], says: "word.safetensors", "x has vectors of 768", "text_encoder has 16")
    try expectError(["clip_l": good, "clip_g": Tensor(repeating: 1, shape: [2, 1280])], says: "clip_g")
    try expectError(["clip_l": good, "clip_g": Tensor(repeating: 1, shape: [1, 16])], says: "different numbers")
    try expectError(["x": Tensor(repeating: .infinity, shape: [2, 16])], says: "word.safetensors", "x holds", "not numbers")
    try expectError(["x": good, "y": good], says: "no textual inversion", "x, y")
    try expectError(["x": Tensor(shape: [0, 16])], says: "no textual inversion")
    try expectError(["x": good], name: "a</w>", says: "a</w>", "another name")
    try expectError(["x": good], name: " ", says: "no name")
    #expect(throws: TokenizerError.self) {
      try DiffusionModel.load(from: Self.model, embeddings: [Self.word("embedding"), Self.word("embedding")])
    }
  }
}
