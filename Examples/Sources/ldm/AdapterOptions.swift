import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

/// LoRAs and learned words.
struct AdapterOptions: ParsableArguments {
  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "A LoRA or LyCORIS file and how strongly to apply it, 1 without a number. Several are applied together.", valueName: "file[=weight]"),
    transform: { try Lora($0) })
  var lora: [Lora] = []

  @Option(
    parsing: .unconditional,
    help:
      """
      A folder of LoRAs for <lora:name:0.8> in the prompt, where name is a file's without its extension; with --profile compel also for \
      withLora(name, 0.8). They are taken out of the prompt. Other prompts cannot have any, since a LoRA changes the model for all of them.
      """
  )
  var loraFolder: String?

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("A word for prompts and the textual inversion that it stands for. Several can be given.", valueName: "name=file"),
    transform: { try Embedding($0) })
  var embedding: [Embedding] = []

  var isEmpty: Bool { lora.isEmpty && loraFolder == nil && embedding.isEmpty }

  struct Lora {
    let path: String
    let weight: Double

    init(path: String, weight: Double) { (self.path, self.weight) = (path, weight) }

    /// A file's name can have an equals sign, too: what follows the last one must be a number to be a weight.
    init(_ text: String) throws {
      guard let sign = text.lastIndex(of: "="), let weight = Double(text[text.index(after: sign)...]) else {
        self.init(path: text, weight: 1)
        return
      }
      guard weight.isFinite else { throw ValidationError("--lora needs a number after the =, such as 0.8.") }
      self.init(path: String(text[..<sign]), weight: weight)
    }
  }

  struct Embedding {
    let name: String
    let path: String

    init(_ text: String) throws {
      guard let sign = text.firstIndex(of: "="), sign > text.startIndex, text.index(after: sign) < text.endIndex else {
        throw ValidationError("--embedding must be NAME=FILE.")
      }
      (name, path) = (String(text[..<sign]), String(text[text.index(after: sign)...]))
    }
  }

  /// What a model is loaded with.
  func adapted(by tagged: [Lora]) throws -> ModelAdapters {
    ModelAdapters(
      adapters: try (lora + tagged).map { AdapterUse(try Adapter(contentsOf: URL(filePath: $0.path)), weight: $0.weight) },
      embeddings: try embedding.map { try TextualInversion(contentsOf: URL(filePath: $0.path), name: $0.name) })
  }

  /// The prompt without its `<lora:name:weight>`, and compel's without `withLora(name, weight)`; and the files that these name.
  func taken(from prompt: String, profile: PromptProfile) throws -> (prompt: String, loras: [Lora]) {
    let (text, tags) = try LoraTag.taken(from: prompt)
    let loras = try tags.map { try lora($0.name, weight: $0.weight, mark: $0.text) }
    guard profile == .compel else { return (text, loras) }
    let named = try CompelPrompt.takingLoras(from: text)
    return (named.text, try loras + named.loras.map { try lora($0.name, weight: $0.weight, mark: "withLora(\($0.name))") })
  }

  /// Refuses `<lora:…>` where it would be read as words, as webui does in a negative prompt.
  ///
  /// - Parameter texts: by the names of their options.
  func checkNone(in texts: KeyValuePairs<String, String?>) throws {
    for (option, text) in texts {
      guard let text, let start = text.firstRange(of: LoraTag.start) else { continue }
      let tag = text[start.lowerBound...].prefix { $0 != ">" }.prefix(200)
      throw Failure(
        "\(tag)> cannot be in \(option): a LoRA changes the model for all prompts; put it in --prompt, with a weight below 0 to avoid it.")
    }
  }

  /// - Parameters:
  ///   - name: a file's without its extension.
  ///   - mark: as it stands in the prompt.
  private func lora(_ name: String, weight: Double, mark: String) throws -> Lora {
    guard let loraFolder else { throw Failure("\(mark) in the prompt needs --lora-folder, the folder of the file \(name).") }
    let files = try Self.files(in: loraFolder), found = files.filter { Self.name($0) == name }
    guard let file = found.first, found.count == 1 else {
      let names = files.isEmpty ? "no LoRA" : Set(files.map(Self.name)).sorted().joined(separator: ", ")
      let problem = found.isEmpty ? "There is no" : "There are \(found.count) files called"
      throw Failure("\(problem) \(name) in \(loraFolder), which has: \(names).")
    }
    return Lora(path: file.path(percentEncoded: false), weight: weight)
  }

  private static func name(_ file: URL) -> String { file.deletingPathExtension().lastPathComponent }

  /// The files of a folder that can be adapters.
  private static func files(in folder: String) throws -> [URL] {
    do {
      return try FileManager.default.contentsOfDirectory(at: URL(filePath: folder), includingPropertiesForKeys: nil)
        .filter { ["safetensors", "pt", "bin", "ckpt"].contains($0.pathExtension) }.sorted { $0.path < $1.path }
    } catch { throw Failure("The folder \(folder) of --lora-folder cannot be read.") }
  }

  /// The settings that are written into pictures; LoRAs of the prompt stand there.
  var settings: [GenerationParameters.Setting] {
    lora.map { .init("LoRA", "\(Self.name(URL(filePath: $0.path)))=\($0.weight)") }
      + embedding.map { .init("Embedding", "\($0.name)=\(URL(filePath: $0.path).lastPathComponent)") }
  }
}

/// Adapters and words that a model is loaded with.
struct ModelAdapters {
  var adapters: [AdapterUse] = []
  var embeddings: [TextualInversion] = []
}
