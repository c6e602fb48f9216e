import LatentDiffusionComponents
import Testing

/// LoRAs that a prompt names.
@Suite struct LoraTagTests {
  @Test func tagsAreTakenOut() throws {
    let (text, tags) = try LoraTag.taken(from: "a <lora:ink:0.8>cat <lora:other style>, <lora:x:-1>")
    #expect(text == "a cat , ")
    #expect(tags.map(\.name) == ["ink", "other style", "x"])
    #expect(tags.map(\.weight) == [0.8, 1, -1])
    #expect(tags[0].text == "<lora:ink:0.8>")
  }

  @Test(arguments: ["", "a cat", "a <lora:ink", "a <lora cat>", "1 < 2 > 1", "<Lora:x:1>"])
  func allElseIsText(prompt: String) throws {
    let (text, tags) = try LoraTag.taken(from: prompt)
    #expect(text == prompt && tags.isEmpty)
  }

  @Test(arguments: ["<lora:x:y>", "<lora:x:1:2>", "<lora:x:nan>", "<lora:x:inf>", "<lora:x:>", "a <lora:x:1> <lora:x:1e999>"])
  func whatIsNoNumberIsAnError(prompt: String) {
    #expect(throws: LoraTagError.self) { try LoraTag.taken(from: prompt) }
  }
}
