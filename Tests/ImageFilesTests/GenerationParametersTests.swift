import Foundation
import ImageFiles
import Testing

@Suite struct GenerationParametersTests {
  private let apple = GenerationParameters(
    prompt: "a red apple, café", negativePrompt: "blurry", steps: 25, sampler: "Euler a", guidanceScale: 4, seed: 0, width: 64,
    height: 64, model: "emoji")

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
