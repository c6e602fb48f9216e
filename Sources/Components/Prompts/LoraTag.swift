/// `<lora:name:0.8>` in a prompt: a LoRA and how strongly to apply it, as stable-diffusion-webui writes it.
public struct LoraTag: Sendable, Equatable {
  /// A file's without its extension.
  public let name: String
  /// 1 where the tag says nothing.
  public let weight: Double
  /// As it stands in the prompt.
  public let text: String

  /// What every tag begins with.
  public static let start = "<lora:"

  /// - Parameter words: `name` or `name:weight`.
  /// - Throws: `LoraTagError`.
  private init(_ words: Substring) throws(LoraTagError) {
    let parts = words.split(separator: ":", omittingEmptySubsequences: false)
    guard let weight = parts.count == 1 ? 1 : Double(parts[1]), weight.isFinite, parts.count < 3 else {
      throw LoraTagError(text: "\(Self.start)\(words)>")
    }
    (name, self.weight, text) = (String(parts[0]), weight, "\(Self.start)\(words)>")
  }

  /// A prompt without its tags, and these in order. What is not closed is text.
  /// - Throws: `LoraTagError` where a tag has no number, or more than a name and a number.
  public static func taken(from prompt: String) throws(LoraTagError) -> (text: String, tags: [LoraTag]) {
    var (rest, text, tags) = (prompt[...], "", [LoraTag]())
    while let start = rest.firstRange(of: start) {
      guard let end = rest[start.upperBound...].firstIndex(of: ">") else { break }
      text += rest[..<start.lowerBound]
      tags.append(try LoraTag(rest[start.upperBound..<end]))
      rest = rest[rest.index(after: end)...]
    }
    return (text + rest, tags)
  }
}

/// A tag that says something else than a name and a weight.
public struct LoraTagError: Error, Sendable, Equatable, CustomStringConvertible {
  /// As it stands in the prompt.
  public let text: String

  public var description: String {
    "\(text) in the prompt must be <lora:name> or <lora:name:weight>, where weight is a number such as 0.8."
  }
}
