import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing
import TextEncoder

/// What other programs make of weighted and long prompts with the tiny text encoders (`Tests/Fixtures/prompts/make_conditionings.py`).
@Suite struct PromptConditioningTests {
  private struct Case: Decodable {
    struct Chunk: Decodable {
      let tokens: [Int]
      let weights: [Double]
    }
    let model, profile, key: String
    let skipped: Int
    let texts: [String]
    let chunks: [[Chunk]]
  }

  private static func tower(_ folder: URL, _ suffix: String = "") throws -> (model: CLIPTextModel, tokenizer: CLIPTokenizer) {
    let files = try ModelFiles(folder)
    let json = try #require(try files.configuration(of: "text_encoder" + suffix))
    let model = try LoadReport.load(from: files.weights(of: "text_encoder" + suffix), in: ExecutionContext()) {
      try CLIPTextModel(CLIPTextConfiguration(json: json), weights: $0)
    }.component
    return (model, try CLIPTokenizer(folder: folder.appending(path: "tokenizer" + suffix)))
  }

  /// The conditioner of a model, with a word of three vectors that the fixtures have.
  private static func conditioner(_ name: String, vectors: [String: Tensor] = [:]) throws -> any VocabularyConditioner {
    let folder = ReferenceModel(name).folder, first = try tower(folder)
    let words = Dictionary(
      uniqueKeysWithValues: vectors.filter { $0.key.hasPrefix("\(name).vectors.") }
        .map { ($0.key.hasSuffix("0") ? "text_encoder" : "text_encoder_2", $0.value) })
    func learned(_ conditioner: some VocabularyConditioner) throws -> any VocabularyConditioner {
      words.isEmpty ? conditioner : try conditioner.adding(TextualInversion(name: "zzq", vectors: words))
    }
    guard name == "sdxl" else { return try learned(CLIPTextConditioner(tokenizer: first.tokenizer, model: first.model)) }
    let towers = try [first, tower(folder, "_2")].map { try XLTextConditioner.Tower(tokenizer: $0.tokenizer, model: $0.model) }
    return try learned(XLTextConditioner(towers, zerosForAbsent: true, toldAestheticScore: false))
  }

  private static func condition(_ prompts: [Prompt], isNegative: Bool = false, by conditioner: any TextConditioner) throws -> Conditioning {
    try conditioner.condition(
      ConditioningRequest(prompts, size: PixelSize(width: 32, height: 32), isNegative: isNegative), in: ExecutionContext())
  }

  @Test(
    .compares("weighted and long prompts of the webui and ComfyUI", in: .architectures, with: "transformers"),
    arguments: ["sd1", "sd2", "sdxl"])
  func equalsThePrograms(_ name: String) throws {
    let folder = fixtures.appending(path: "prompts")
    let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: folder.appending(path: "conditionings.json")))
      .filter { $0.model == name }
    let tensors = try readTensors(folder.appending(path: "conditionings-\(name).safetensors"))
    let conditioner = try Self.conditioner(name, vectors: tensors)
    let tokenizer = try #require(conditioner.textEncoders["text_encoder"]?.tokenizer)
    #expect(cases.count > 15)
    for given in cases {
      let profile = try #require(PromptProfile(rawValue: given.profile))
      for (text, chunks) in zip(given.texts, given.chunks) {
        let found = try tokenizer.tokens(of: text, profile: profile)
        #expect(found.chunks.map(\.tokens) == chunks.map(\.tokens), "\(given.key) \(text)")
        #expect(found.chunks.map(\.weights) == chunks.map(\.weights), "\(given.key) \(text)")
        #expect(found.dropped == [] && found.count == found.chunks.reduce(0) { $0 + $1.content.count })
      }
      let prompts = given.texts.map { Prompt($0, skippedLayers: given.skipped, profile: profile) }
      let found = try Self.condition(prompts, by: conditioner)
      expectClose(found.contexts[0], try #require(tensors["\(given.key).states"]), tolerance: 1e-4, given.key)
      #expect(prompts.compactMap(conditioner.length(of:)).max() == found.length)
      if let pooled = tensors["\(given.key).pooled"] {
        expectClose(try #require(found.pooled), pooled, tolerance: 1e-4, "\(given.key) pooled")
      }
    }
  }

  private struct Batch: Decodable {
    let model, key: String
    let skipped: Int
    let texts: [String]
  }

  @Test(
    .compares("weights, blends and prompts side by side of compel", in: .architectures, with: "compel"), arguments: ["sd1", "sd2", "sdxl"])
  func equalsCompel(_ name: String) throws {
    let folder = fixtures.appending(path: "prompts")
    let batches = try JSONDecoder().decode([Batch].self, from: Data(contentsOf: folder.appending(path: "compel-states.json")))
      .filter { $0.model == name }
    let tensors = try readTensors(folder.appending(path: "compel-\(name).safetensors"))
    let conditioner = try Self.conditioner(name)
    #expect(batches.count > 20)
    for given in batches {
      let prompts = given.texts.map { Prompt($0, skippedLayers: given.skipped, profile: .compel) }
      let found = try Self.condition(prompts, by: conditioner)
      expectClose(found.contexts[0], try #require(tensors["\(given.key).states"]), tolerance: 1e-4, "\(given.key) \(given.texts)")
      #expect(prompts.compactMap(conditioner.length(of:)).max() == found.length)
      if let pooled = tensors["\(given.key).pooled"] {
        expectClose(try #require(found.pooled), pooled, tolerance: 1e-4, "\(given.key) pooled")
      }
    }
  }

  /// What compel puts behind shorter texts is an empty one, whatever else is drawn.
  @Test func placesOfCompel() throws {
    let conditioner = try Self.conditioner("sd1"), tokenizer = try #require(conditioner.textEncoders["text_encoder"]?.tokenizer)
    var request = ConditioningRequest([Prompt("a cat", profile: .compel)], size: PixelSize(width: 32, height: 32))
    let own = try conditioner.condition(request, in: ExecutionContext()).contexts[0]
    request.length = 3 * own.shape[1]
    let long = try conditioner.condition(request, in: ExecutionContext()).contexts[0]
    request.prompts[0].text = ""
    request.length = nil
    let empty = try conditioner.condition(request, in: ExecutionContext()).contexts[0]
    #expect(long.elements == Tensor.concatenated([own, empty, empty], axis: 1).elements)
    let tokens = try tokenizer.tokens(of: "(\"a (cat)0.5 (photo)0.7\", \"snow\").blend(1, 3)", profile: .compel)
    let lengths = ["a", "cat", "photo"].map { tokenizer.encode($0).count - 2 }, first = 1 + lengths[0], second = first + lengths[1]
    #expect(tokens.chunks.map(\.lessened) == [[first..<second, second..<second + lengths[2]], []])
    #expect(tokens.places.map(\.shares) == [[0.25, 0.75]])
    #expect(tokenizer.words(of: tokens).map(\.text).prefix(3) == ["a", "cat", "photo"])
    let cut = Prompt("(" + String(repeating: "the ", count: 25) + ")0.9", profile: .compel)
    #expect(conditioner.truncation(of: cut)?.dropped == "the the the" && conditioner.truncation(of: cut)?.limit == 22)
    // The pooled state of SDXL is that of the text with its marks.
    let marked = Prompt(String(repeating: "the ", count: 20) + "(cat)1.2", profile: .compel)
    #expect(conditioner.truncation(of: marked) == nil)
    #expect(try Self.conditioner("sdxl").truncation(of: marked) != nil)
    for text in ["cat.swap(dog)", "a withLora(b)", "(a)" + String(repeating: "9", count: 50), "(a)" + String(repeating: "9", count: 400)] {
      #expect(throws: ComponentError.self) { try Self.condition([Prompt(text, profile: .compel)], by: conditioner) }
    }
  }

  /// Marks in a plain prompt are letters, and a plain prompt with another profile is read the same.
  @Test func plainPrompts() throws {
    let conditioner = try Self.conditioner("sd1")
    let plain = try Self.condition(["a (cat:1.5)"], by: conditioner),
      marked = try Self.condition([Prompt("a (cat:1.5)", profile: .webui)], by: conditioner)
    #expect(plain.contexts[0].elements != marked.contexts[0].elements)
    for profile in [PromptProfile.webui, .comfy, .compel] {
      let same = try Self.condition([Prompt("a cat", profile: profile)], by: conditioner)
      #expect(same.contexts[0].elements == (try Self.condition(["a cat"], by: conditioner)).contexts[0].elements)
    }
  }

  /// In ComfyUI texts are repeated until they are equally long, in the webui the shorter ones have empty chunks.
  @Test func textsOfDifferentLengths() throws {
    let conditioner = try Self.conditioner("sd1"), length = 24
    let texts = [String(repeating: "the ", count: 30), "a cat"]
    let comfy = try Self.condition(texts.map { Prompt($0, profile: .comfy) }, by: conditioner)
    #expect(comfy.contexts[0].shape == [2, 2 * length, 16])
    let short = try Self.condition([Prompt("a cat", profile: .comfy)], by: conditioner).contexts[0]
    #expect(comfy.rows(1..<2).contexts[0].elements == Tensor.concatenated([short, short], axis: 1).elements)
    let webui = try Self.condition(texts.map { Prompt($0, profile: .webui) }, by: conditioner)
    let empty = try Self.condition([Prompt("", profile: .webui)], by: conditioner).contexts[0]
    #expect(webui.rows(1..<2).contexts[0].elements == Tensor.concatenated([short, empty], axis: 1).elements)
    // A diffusers prompt and one of another program meet.
    let mixed = try Self.condition([Prompt("a cat"), Prompt(texts[0], profile: .comfy)], by: conditioner)
    #expect(mixed.contexts[0].shape == [2, 2 * length, 16])
    #expect(throws: ComponentError.self) { try Conditioning.commonLength([3, 5, 7, 11, 13], profile: .comfy) }
    #expect(try Conditioning.commonLength([2, 3], profile: .comfy) == 6 && Conditioning.commonLength([2, 3], profile: .webui) == 3)
  }

  /// The webui takes an empty negative prompt of SDXL for none, ComfyUI reads it.
  @Test func emptyNegativePromptsOfXL() throws {
    let conditioner = try Self.conditioner("sdxl")
    func isZero(_ profile: PromptProfile, _ text: String = "") throws -> Bool {
      try Self.condition([Prompt(text, profile: profile)], isNegative: true, by: conditioner).contexts[0].elements.allSatisfy { $0 == 0 }
    }
    #expect(try isZero(.webui) && !isZero(.comfy) && !isZero(.diffusers) && !isZero(.webui, "cat"))
  }

  /// What is beyond the most chunks is told; what ends in no numbers throws.
  @Test func limits() throws {
    let conditioner = try Self.conditioner("sd1"), tokenizer = try #require(conditioner.textEncoders["text_encoder"]?.tokenizer)
    let text = String(repeating: "the ", count: 22 * PromptTokens.mostChunks) + "of a"
    for profile in [PromptProfile.webui, .comfy] {
      let tokens = try tokenizer.tokens(of: text, profile: profile)
      #expect(tokens.chunks.count == PromptTokens.mostChunks && tokens.dropped.count == tokens.count - 22 * PromptTokens.mostChunks)
      let told = conditioner.truncation(of: Prompt(text, profile: profile))
      #expect(told?.dropped == "of a" && told?.limit == 22 * PromptTokens.mostChunks)
      #expect(conditioner.truncation(of: Prompt("cat", profile: profile)) == nil)
      let lost = tokenizer.words(of: tokens).filter { $0.chunk == nil }
      #expect(lost.map(\.text) == ["of", "a"] && lost.flatMap(\.tokens) == tokens.dropped)
    }
    #expect(throws: ComponentError.self) { try Self.condition([Prompt("(cat:1e300)", profile: .comfy)], by: conditioner) }
    #expect(try tokenizer.tokens(of: String(repeating: "BREAK ", count: 100_000), profile: .webui).chunks.count == PromptTokens.mostChunks)
  }

  @Test func words() throws {
    let tokenizer = try #require(try Self.conditioner("sd1").textEncoders["text_encoder"]?.tokenizer)
    let words = try tokenizer.words(of: tokenizer.tokens(of: "a (photo:1.5) BREAK [cat]", profile: .webui))
    #expect(words.map(\.text) == ["a", "photo", "cat"] && words.map(\.chunk) == [0, 0, 1])
    #expect(words.map(\.weight) == [1, 1.5, 1 / 1.1])
    let plain = try tokenizer.words(of: tokenizer.tokens(of: String(repeating: "the ", count: 23) + "of", profile: .diffusers))
    #expect(plain.count { $0.chunk == 0 } == 22 && plain.suffix(2).map(\.text) == ["the", "of"] && plain.last?.chunk == nil)
  }

  @Test func clipSkips() throws {
    #expect(try PromptProfile.diffusers.skippedLayers(clipSkip: 1) == 1 && PromptProfile.compel.skippedLayers(clipSkip: 1) == 1)
    #expect(try [0, 1, 2, 3].map { try PromptProfile.webui.skippedLayers(clipSkip: $0) } == [0, 0, 1, 2])
    #expect(try [0, -1, -2].map { try PromptProfile.comfy.skippedLayers(clipSkip: $0) } == [0, 0, 1])
    #expect(
      try PromptProfile.webui.skippedLayers(clipSkip: 2, isXL: true) == 0
        && PromptProfile.comfy.skippedLayers(clipSkip: -2, isXL: true) == 0)
    for (profile, number) in [
      (PromptProfile.diffusers, -1), (.webui, -1), (.comfy, 1), (.comfy, Int.min), (.webui, .max), (.diffusers, .max),
    ] {
      #expect(throws: ComponentError.self, "\(profile) \(number)") { try profile.skippedLayers(clipSkip: number) }
    }
    #expect(throws: ComponentError.self) { try PromptProfile.comfy.skippedLayers(clipSkip: -1, isXL: true) }
  }
}
