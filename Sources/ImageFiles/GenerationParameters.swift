import Foundation

/// How a picture was made, in the form in which stable-diffusion-webui keeps it in a PNG file's text chunk `parameters`:
///
///     a red apple on a table
///     Negative prompt: blurry
///     Steps: 25, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 512x512, Model: emoji
public struct GenerationParameters: Sendable, Equatable {
  /// One entry of the last line, in the order of that line.
  public struct Setting: Sendable, Equatable {
    /// The text before the colon: `Sampler`.
    public let name: String
    /// The text after it: `Euler a`.
    public let value: String

    /// An entry with this name and value.
    public init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }

  /// What the picture should show.
  public var prompt: String
  /// What the picture should not show; may be empty.
  public var negativePrompt: String
  /// The entries of the last line, in their order.
  public var settings: [Setting]

  /// Parameters with any settings.
  public init(prompt: String, negativePrompt: String = "", settings: [Setting]) {
    self.prompt = prompt
    self.negativePrompt = negativePrompt
    self.settings = settings
  }

  /// Parameters with the settings that every generation has, under webui's names.
  /// - Parameters:
  ///   - strength: how much of a given picture was replaced, for image-to-image.
  ///   - others: further settings, which come last.
  public init(
    prompt: String, negativePrompt: String = "", steps: Int, sampler: String, guidanceScale: Float, seed: UInt64, width: Int,
    height: Int, model: String? = nil, strength: Float? = nil, others: [Setting] = []
  ) {
    self.init(
      prompt: prompt, negativePrompt: negativePrompt,
      settings: [
        Setting("Steps", "\(steps)"), Setting("Sampler", sampler), Setting("CFG scale", "\(guidanceScale)"), Setting("Seed", "\(seed)"),
        Setting("Size", "\(width)x\(height)"),
      ] + (model.map { [Setting("Model", $0)] } ?? []) + (strength.map { [Setting("Denoising strength", "\($0)")] } ?? []) + others)
  }

  /// The value of the last setting of this name, which is the one that webui takes.
  public subscript(name: String) -> String? { settings.last { $0.name == name }?.value }

  /// The text of the chunk.
  public var text: String {
    let negative = negativePrompt.isEmpty ? "" : "\nNegative prompt: " + negativePrompt
    let line = settings.map { $0.name == $0.value ? $0.name : $0.name + ": " + quoted($0.value) }.joined(separator: ", ")
    return (prompt + negative + "\n" + line).trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Reads the text of the chunk; any text is valid. The last line holds settings if at least three are found in it.
  public init(parsing text: String) {
    var lines = text.trimmingCharacters(in: .whitespacesAndNewlines)
      .split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
      .map { $0.trimmingCharacters(in: .whitespaces) }
    settings = lines.last.map(readSettings) ?? []
    if settings.count < 3 { settings = [] } else { lines.removeLast() }
    let mark = "Negative prompt:"
    let negativeStart = lines.firstIndex { $0.hasPrefix(mark) } ?? lines.endIndex
    prompt = lines[..<negativeStart].joined(separator: "\n")
    negativePrompt = lines[negativeStart...]
      .map { $0.hasPrefix(mark) ? $0.dropFirst(mark.count).trimmingCharacters(in: .whitespaces) : $0 }
      .joined(separator: "\n")
  }
}

/// Quotes a value as a JSON string if it contains characters that separate settings.
private func quoted(_ value: String) -> String {
  guard value.contains(where: { ",:\n\r\n".contains($0) }) else { return value }
  let encoder = JSONEncoder()
  encoder.outputFormatting = .withoutEscapingSlashes
  return (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? value
}

private func readSettings(_ line: String) -> [GenerationParameters.Setting] {
  var settings: [GenerationParameters.Setting] = []
  var rest = line[...]
  while let colon = rest.firstIndex(of: ":") {
    let name = rest[..<colon].reversed().prefix { $0.isLetter || $0.isNumber || "_ -/".contains($0) }.reversed().drop { " -/".contains($0) }
    rest = rest[rest.index(after: colon)...].drop { $0.isWhitespace }
    let value: String
    if let end = endOfQuoted(rest), let plain = try? JSONDecoder().decode(String.self, from: Data(rest[..<end].utf8)) {
      value = plain
      rest = rest[end...].dropFirst()
    } else {
      let end = rest.firstIndex(of: ",") ?? rest.endIndex
      value = String(rest[..<end])
      rest = rest[end...].dropFirst()
    }
    if name.count > 1 { settings.append(.init(String(name), value)) }
  }
  return settings
}

/// The end of a quoted value, if a comma or the end of the line follows it.
private func endOfQuoted(_ text: Substring) -> Substring.Index? {
  guard text.first == "\"" else { return nil }
  var isEscaped = false
  for index in text.indices.dropFirst() {
    if isEscaped {
      isEscaped = false
    } else if text[index] == "\\" {
      isEscaped = true
    } else if text[index] == "\"" {
      let end = text.index(after: index)
      return end == text.endIndex || text[end] == "," ? end : nil
    }
  }
  return nil
}
