import Foundation
import ImageFiles
import Testing

@Suite struct GenerationParametersTests {
  private let apple = GenerationParameters(
    prompt: "a red apple, café", negativePrompt: "blurry", steps: 25, sampler: "Euler a", guidanceScale: 4, seed: 0, width: 64,
    height: 64, model: "emoji")

  /// In the comment of EXIF, where the webui and others look for it; pixels and alpha are as without it.
  @Test(arguments: ["a red apple", "café, 日本語 🍎", String(repeating: "long ", count: 5000)])
  func jpegAndWebPHaveAComment(_ prompt: String) throws {
    var parameters = apple
    parameters.prompt = prompt.trimmingCharacters(in: .whitespaces)
    for file in ["wide.png", "colour6-depth8.png", "one-pixel.png"] {
      let picture = try Picture(contentsOf: folder.appending(path: file))
      let jpeg = try picture.jpegData(parameters: parameters.text), webp = try picture.webpData(parameters: parameters.text)
      let lossy = try picture.webpData(quality: 80, parameters: parameters.text)
      for data in [jpeg, webp, lossy] { #expect(try GenerationParameters(data: data) == parameters) }
      #expect(try Picture(data: webp) == picture)
      #expect(try Picture(data: jpeg) == Picture(data: picture.jpegData()))
      #expect(try Picture(data: lossy) == Picture(data: picture.webpData(quality: 80)))
      #expect(try GenerationParameters(data: picture.webpData()) == nil)
    }
  }

  @Test func aCommentThatIsTooLongForJPEGIsAnError() throws {
    let picture = Picture(width: 1, height: 1, pixels: [1, 2, 3])
    #expect(throws: ImageFileError.self) { try picture.jpegData(parameters: String(repeating: "x", count: 40_000)) }
    #expect(try GenerationParameters(data: picture.webpData(parameters: String(repeating: "x", count: 40_000)))?.prompt.count == 40_000)
  }

  /// A workflow of ComfyUI with a second sampler, and a number that comes from another node.
  @Test func comfyUIsWorkflowIsRead() throws {
    let workflow = """
      {"3": {"class_type": "KSampler", "inputs": {"seed": ["9", 0], "steps": 20, "cfg": 8.5, "sampler_name": "dpmpp_2m", "scheduler": "karras",
        "denoise": 0.75, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
       "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
       "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a (red:1.2) apple", "clip": ["4", 1]}},
       "7": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["8", 0]}},
       "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
       "9": {"class_type": "PrimitiveInt", "inputs": {"value": 1234567890123456789}},
       "10": {"class_type": "LoraLoader", "inputs": {"lora_name": "x", "model": ["4", 0]}},
       "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
       "11": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 10, "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["3", 0]}}}
      """
    let png = try Picture(width: 1, height: 1, pixels: [1, 2, 3]).pngData(parameters: workflow)
    // Pillow writes ComfyUI's chunk as this one, under another keyword.
    let read = try #require(try GenerationParameters(data: renamed(png, to: "prompt")))
    #expect(read.prompt == "a (red:1.2) apple" && read.negativePrompt == "blurry")
    let expected = [
      ("Steps", "20"), ("Sampler", "dpmpp_2m"), ("Schedule type", "karras"), ("CFG scale", "8.5"), ("Seed", "1234567890123456789"),
      ("Size", "512x768"), ("Denoising strength", "0.75"), ("Model", "sd15.safetensors"),
    ]
    for (name, value) in expected { #expect(read[name] == value, "\(name)") }
  }

  /// Nodes in a circle, links into nothing, and what is no workflow.
  @Test(arguments: [
    #"{"1": {"inputs": {"seed": ["1", 0], "positive": ["1", 0], "negative": ["2", 0], "latent_image": ["1", 0], "steps": ["1", 0]}}}"#,
    #"{"1": {"inputs": {"seed": 1, "positive": ["2", 0]}}, "2": {"inputs": {"a": ["3", 0]}}, "3": {"inputs": {"b": ["2", 0]}}}"#,
    "{}", "[1]", "words", #"{"1": {"inputs": {}}}"#,
  ])
  func strangeWorkflowsEnd(_ workflow: String) throws {
    let png = try Picture(width: 1, height: 1, pixels: [1, 2, 3]).pngData(parameters: workflow)
    #expect((try GenerationParameters(data: renamed(png, to: "prompt")))?.prompt ?? "" == "")
  }

  /// A PNG whose chunk `parameters` has another keyword.
  private func renamed(_ png: Data, to keyword: String) throws -> Data {
    let chunks = try PNGChunks(Array(png), name: "x"), text = try #require(chunks.text("parameters"))
    let whole = try #require(chunks.chunks.first { ["tEXt", "iTXt"].contains($0.type) }).whole
    return Data(png[..<whole.lowerBound] + PNGChunks.chunk(text: text, keyword: keyword) + png[whole.upperBound...])
  }

  @Test func textIsWebuis() throws {
    #expect(
      apple.text == """
        a red apple, café
        Negative prompt: blurry
        Steps: 25, Sampler: Euler a, CFG scale: 4.0, Seed: 0, Size: 64x64, Model: emoji
        """)
    #expect(apple.text == ImageCases.all.text.first?.text)
  }

  @Test(arguments: ImageCases.all.text) func chunkIsTheOneThatPillowWrites(_ expected: ImageCases.Text) throws {
    let picture = try Picture(contentsOf: folder.appending(path: expected.file))
    let data = try picture.pngData(parameters: expected.text)
    let found = try #require(data.range(of: expected.chunk))
    let pixels = try #require(data.range(of: Data("IDAT".utf8)))
    #expect(found.upperBound <= pixels.lowerBound)
    #expect(try GenerationParameters(data: data)?.text == expected.text)
  }

  @Test(arguments: ImageCases.all.text) func readsWhatPillowWrote(_ expected: ImageCases.Text) throws {
    let read = try #require(try GenerationParameters(contentsOf: folder.appending(path: expected.file)))
    #expect(read.text == expected.text)
    #expect(read["Sampler"] == "Euler a")
  }

  @Test func aPictureWithoutTextHasNone() throws {
    #expect(try GenerationParameters(contentsOf: folder.appending(path: "wide.png")) == nil)
    #expect(try GenerationParameters(contentsOf: folder.appending(path: "grey.jpg")) == nil)
    #expect(throws: ImageFileError.self) { try GenerationParameters(contentsOf: folder.appending(path: "images.json")) }
  }

  @Test func textThatWasDamagedIsNotTaken() throws {
    var data = try Picture(contentsOf: folder.appending(path: "wide.png")).pngData(parameters: "prompt")
    let place = try #require(data.range(of: Data("prompt".utf8)))
    data[place.lowerBound] ^= 1
    #expect(try GenerationParameters(data: data) == nil)
  }

  @Test(arguments: [
    "", "x", "two\nlines", "Steps: 1", "日本\u{1}語", "with: colon, and comma", "a\r\nb", "ends in quote\"", "🍎", "tab\tand \\ backslash",
  ])
  func anyTextComesBack(_ prompt: String) throws {
    var parameters = apple
    parameters.prompt = prompt
    parameters.settings.append(.init("Extra", "a, b: \"c\" \\ / \n" + prompt))
    parameters.settings.append(.init("Style name", "plain"))
    let data = try Picture(width: 1, height: 1, pixels: [1, 2, 3]).pngData(parameters: parameters.text)
    var read = try #require(try GenerationParameters(data: data))
    // Lines end in one way only once read.
    read.prompt = read.prompt.replacing("\n", with: prompt.contains("\r\n") ? "\r\n" : "\n")
    #expect(read == parameters)
  }

  @Test func zerosCannotCutTheTextShort() throws {
    let data = try Picture(width: 1, height: 1, pixels: [1, 2, 3]).pngData(parameters: "a\0b")
    #expect(try GenerationParameters(data: data)?.prompt == "ab")
  }

  /// A text that another version of webui wrote.
  @Test func readsOtherWritersSettings() {
    let read = GenerationParameters(
      parsing: """
        girl with a beret, ((eyeshadow)), style: detailed
        second line
        Negative prompt: ugly, fat
        more of it
        Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x512, \
        Lora hashes: "a: 1, b: 2", Version: v1.9.3
        """)
    #expect(read.prompt == "girl with a beret, ((eyeshadow)), style: detailed\nsecond line")
    #expect(read.negativePrompt == "ugly, fat\nmore of it")
    #expect(read["CFG scale"] == "7")
    #expect(read["Lora hashes"] == "a: 1, b: 2")
    #expect(read["Version"] == "v1.9.3")
    #expect(read.settings.count == 8)
    #expect(read["Model"] == nil)
  }

  @Test func aPromptAloneIsNoSetting() {
    let read = GenerationParameters(parsing: "a cat, style: nice, mood: calm")
    #expect(read.prompt == "a cat, style: nice, mood: calm")
    #expect(read.settings.isEmpty)
  }

  @Test func aLongTextTakesNoLongTime() throws {
    let prompt = String(repeating: "word \"", count: 300_000)
    let text = GenerationParameters(prompt: prompt, settings: apple.settings).text
    let data = try Picture(width: 1, height: 1, pixels: [1, 2, 3]).pngData(parameters: text)
    let start = ContinuousClock.now
    #expect(try GenerationParameters(data: data)?["Seed"] == "0")
    #expect(GenerationParameters(parsing: prompt).settings.isEmpty)
    #expect(ContinuousClock.now - start < .seconds(20))
  }
}
