import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

struct PromptOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "What to draw; - reads it from standard input.")
  var prompt: String

  @Option(parsing: .unconditional, help: "What to stay away from.")
  var negativePrompt: String?

  func validate() throws {
    guard Self.isVisible(prompt) else { throw ValidationError("The prompt is empty; say with --prompt what to draw.") }
  }

  /// The prompt, from standard input where it is asked for.
  func text() throws -> String {
    guard prompt == "-" else { return prompt }
    let most = GenerationRequest.maximumPromptBytes
    var bytes = Data()
    do {
      while bytes.count <= most, let piece = try FileHandle.standardInput.read(upToCount: most + 1 - bytes.count), !piece.isEmpty {
        bytes += piece
      }
    } catch {
      throw Failure("Standard input cannot be read; give the prompt after --prompt, or in a pipe.")
    }
    guard bytes.count <= most else { throw Failure("The prompt on standard input is too long; give at most \(most) bytes.") }
    guard let text = String(data: bytes, encoding: .utf8) else { throw Failure("The prompt on standard input is not UTF-8 text.") }
    guard Self.isVisible(text) else { throw Failure("The prompt on standard input is empty; write what to draw.") }
    return text.hasSuffix("\n") ? String(text.dropLast()) : text
  }

  /// A tokenizer drops what cannot be seen, so that another prompt would say nothing.
  private static func isVisible(_ text: String) -> Bool {
    text.unicodeScalars.contains { !$0.properties.isWhitespace && $0.properties.generalCategory != .control }
  }
}

struct SamplingOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "Steps. Without it, what the model recommends, or 50.")
  var steps: Int?

  @Option(
    parsing: .unconditional,
    help: "How closely to follow the prompt; up to 1 the negative prompt has no effect. Without it, what the model recommends, or 7.5.")
  var guidance: Double?

  @Option(
    parsing: .unconditional, help: "Everything random follows from it. Without it, a random one, which is printed.",
    transform: {
      guard let seed = UInt64($0) else { throw ValidationError("--seed must be a whole number from 0 to \(UInt64.max).") }
      return seed
    })
  var seed: UInt64?

  @Option(parsing: .unconditional, help: "The scheduler. Without it, the model's own.")
  var scheduler: SchedulerKind?

  @Option(parsing: .unconditional, help: "Pixels. Without it, those of the picture that is given, or what the model was made for.")
  var width: Int?

  @Option(parsing: .unconditional, help: "Pixels. Without it, those of the picture that is given, or what the model was made for.")
  var height: Int?

  @Option(parsing: .unconditional, help: "Pictures, all in the same passes. More than one are numbered: out-1.png, out-2.png …")
  var count = 1

  @Option(
    parsing: .unconditional,
    help: "Standard normal noise to start from, in place of the seed's: a float32 tensor [count, 4, h, w], named noise or the only one.")
  var loadNoise: String?

  func validate() throws {
    guard (1...100_000).contains(steps ?? 1) else { throw ValidationError("--steps must be from 1 to 100000.") }
    guard (0...1e6).contains(guidance ?? 1) else { throw ValidationError("--guidance must be a number from 0 to 1000000.") }
    guard (1...1000).contains(count) else { throw ValidationError("--count must be from 1 to 1000.") }
    guard width ?? 1 > 0, height ?? 1 > 0 else { throw ValidationError("--width and --height must be more than 0.") }
  }
}

struct ShortcutOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help:
      "Faster, and a little another picture: only every so many passes are whole, and those between reuse their deep features. 2 or 3 do.")
  var stepCache: Int?

  @Option(
    parsing: .unconditional,
    help: "Faster for large pictures, and a little another picture: the part of the tokens, 0…0.75, that self-attention does without.")
  var mergeTokens: Double?

  func validate() throws {
    guard (1...100_000).contains(stepCache ?? 1) else { throw ValidationError("--step-cache must be from 1 to 100000.") }
    let range = Shortcuts.tokenMergingRange
    guard range.contains(mergeTokens ?? 0) else { throw ValidationError("--merge-tokens must be a number from 0 to \(range.upperBound).") }
  }

  func apply(to request: inout GenerationRequest) {
    request.stepCaching = stepCache.map { StepCaching(interval: $0) }
    request.tokenMerging = mergeTokens
  }

  /// As they are written into pictures.
  var settings: [GenerationParameters.Setting] {
    let all = [("Step cache interval", stepCache.map { "\($0)" }), ("Token merging ratio", mergeTokens.map { "\($0)" })]
    return all.compactMap { name, value in value.map { .init(name, $0) } }
  }
}

struct OutputOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "Where the picture goes: a .png or .jpg file. How it was made is written into a .png, too.")
  var output: String

  @Option(
    parsing: .unconditional, help: "Where the latents go, as they are before decoding: one tensor latents, float32, [count, 4, h, w].")
  var saveLatents: String?

  @Option(parsing: .unconditional, help: "Where the picture goes before it is rounded: one tensor image, float32, [count, H, W, 3], 0…1.")
  var saveImageTensor: String?

  /// Said before the work is done, not after.
  func check(count: Int) throws {
    for url in pictures(count) {
      _ = try PictureFormat(extensionOf: url)
      try checkWritable(url)
    }
    for path in [saveLatents, saveImageTensor].compactMap({ $0 }) { try checkWritable(URL(filePath: path)) }
  }

  /// The file itself for one picture, numbered files for more.
  func pictures(_ count: Int) -> [URL] {
    let url = URL(filePath: output)
    guard count > 1 else { return [url] }
    let name = url.deletingPathExtension().lastPathComponent
    return (1...count).map { url.deletingLastPathComponent().appending(path: "\(name)-\($0).\(url.pathExtension)") }
  }
}

/// - Throws: a `Failure` where a file cannot be put there.
func checkWritable(_ url: URL) throws {
  let path = url.path(percentEncoded: false)
  let folder = url.deletingLastPathComponent().path(percentEncoded: false)
  var isFolder: ObjCBool = false
  let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
  guard !(exists && isFolder.boolValue) else { throw Failure("\(path) is a folder; give the name of a file to write.") }
  guard exists || FileManager.default.fileExists(atPath: folder) else {
    throw Failure("\(path) cannot be written because there is no folder \(folder); create it first.")
  }
  guard access(exists ? path : folder, W_OK) == 0 else {
    throw Failure("\(path) cannot be written because its permissions or its folder's forbid it; choose another place.")
  }
}

/// A picture to start from.
func picture(_ path: String) throws -> Picture { try Picture(contentsOf: URL(filePath: path)) }
