import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

/// What a command is told to draw.
protocol WordOptions: ParsableArguments {
  var negativePrompt: String? { get }
  /// Whose conventions the prompts follow.
  var profile: PromptProfile { get }
  /// Layers that the text encoder leaves out, as the profile counts them.
  var clipSkip: Int { get }
  /// What a second text encoder reads.
  var prompt2: String? { get }
  var negativePrompt2: String? { get }
  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] { get }
  /// What to draw.
  func text() throws -> String
  /// - Throws: an error where a command needs words and there are none.
  func checkIsGiven() throws
  /// - Throws: a `Failure` where a model has another kind of words.
  func check(_ model: StableDiffusion) throws
}

extension WordOptions {
  var profile: PromptProfile { .diffusers }
  var clipSkip: Int { 0 }
  var prompt2: String? { nil }
  var negativePrompt2: String? { nil }
  var settings: [GenerationParameters.Setting] { [] }
  func checkIsGiven() {}
  func check(_ model: StableDiffusion) {}

  /// - Throws: a `ValidationError` where what is said beside the prompts cannot be.
  func checkBesidePrompts() throws {
    guard negativePrompt2 == nil || negativePrompt != nil else {
      throw ValidationError("--negative-prompt-2 goes with --negative-prompt.")
    }
  }
}

/// For models that read no text.
struct NoWords: WordOptions {
  var negativePrompt: String? { nil }
  func text() -> String { "" }
}

struct ClassOptions: WordOptions {
  @Option(parsing: .unconditional, help: "What to draw: the number of a class, or one of the names that the model has for it.")
  var classLabel: String

  @Option(parsing: .unconditional, help: "A class to stay away from, for --guidance above 1.")
  var negativeClassLabel: String?

  var negativePrompt: String? { negativeClassLabel }
  func text() -> String { classLabel }

  func check(_ model: StableDiffusion) throws {
    let conditioner = model.pipeline.conditioner
    guard conditioner is ClassConditioner || conditioner is ClassEmbeddingConditioner else {
      throw Failure("This model draws no classes; give one that does with --model, or a prompt to ldm txt2img.")
    }
  }
}

struct PromptOptions: WordOptions {
  @Option(
    name: [.customShort("p"), .long], parsing: .unconditional, help: "What to draw; - reads it from standard input. It may be empty (\"\")."
  )
  var prompt: String?

  @Option(parsing: .unconditional, help: "What to stay away from.")
  var negativePrompt: String?

  @Option(
    name: .customLong("prompt-2"), parsing: .unconditional,
    help: "SDXL: what the second text encoder reads. Without it, or if it is empty, the prompt.")
  var prompt2: String?

  @Option(
    name: .customLong("negative-prompt-2"), parsing: .unconditional,
    help: "SDXL: what the second text encoder reads of the negative prompt. Without it, the negative prompt.")
  var negativePrompt2: String?

  @OptionGroup var reading: ReadingOptions
  var profile: PromptProfile { reading.profile }
  var clipSkip: Int { reading.clipSkip }

  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] {
    [("Prompt 2", prompt2), ("Negative prompt 2", negativePrompt2)].compactMap { name, text in text.map { .init(name, $0) } }
  }

  func validate() throws { try checkBesidePrompts() }

  /// For commands that draw nothing without words.
  func checkIsGiven() throws {
    if prompt == nil { throw ValidationError("Missing expected argument '--prompt <prompt>'") }
  }

  /// The prompt, empty where none is given; `-` reads it from standard input.
  func text() throws -> String {
    guard prompt == "-" else { return prompt ?? "" }
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
    return text.hasSuffix("\n") ? String(text.dropLast()) : text
  }
}

/// What a U-Net predicts, as the command line names it.
enum Prediction: String, CaseIterable, ExpressibleByArgument {
  case epsilon, v, sample

  var type: PredictionType {
    switch self {
    case .epsilon: .epsilon
    case .v: .vPrediction
    case .sample: .sample
    }
  }
}

extension ResizeMode: @retroactive ExpressibleByArgument {}

struct SamplingOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: "Steps. Without it, what the model recommends, or 50; for editing 100, for latent consistency models 4.")
  var steps: Int?

  @Option(
    parsing: .unconditional,
    help:
      """
      How closely to follow the prompt; up to 1 the negative prompt has no effect. Without it, what the model recommends, or 7.5; \
      5 for SDXL, 8.5 for latent consistency models.
      """
  )
  var guidance: Double?

  @Option(
    parsing: .unconditional,
    help: "What the model predicts: \(Prediction.allCases.map(\.rawValue).joined(separator: ", ")). Without it, what its files say.")
  var prediction: Prediction?

  @Option(
    parsing: .unconditional,
    help: """
      Pixels. Without both, those of the picture that is given, or what the model was made for: without a picture, and in the picture's proportions \
      where that has more than four times as many pixels. One alone decides on the other by the picture's proportions.
      """)
  var width: Int?

  @Option(parsing: .unconditional, help: "Pixels, as --width.")
  var height: Int?

  @Option(
    help: """
      What draws the random numbers of a seed: cpu or gpu, PyTorch's generators. Without it, gpu with --profile webui, and cpu otherwise. With --profile comfy \
      the start is always the CPU's, and this says where the noise of steps is drawn; without it, gpu.
      """)
  var noise: NoiseDevice?

  @Option(
    parsing: .unconditional,
    help: """
      How a given picture takes another size: stretch, crop (what sticks out is cut off) or fill (the edges fill what is left). Without it, stretch to \
      --width and --height, and crop to what the model was made for.
      """)
  var resizeMode: ResizeMode?

  /// The settings that are written into pictures: under the webui's name and with its word for a GPU's numbers that are drawn without one.
  var settings: [GenerationParameters.Setting] { noise.map { [.init("RNG", $0 == .gpu ? "NV" : "CPU")] } ?? [] }

  func validate() throws {
    guard (1...100_000).contains(steps ?? 1) else { throw ValidationError("--steps must be from 1 to 100000.") }
    guard (0...1e6).contains(guidance ?? 1) else { throw ValidationError("--guidance must be a number from 0 to 1000000.") }
    guard width ?? 1 > 0, height ?? 1 > 0 else { throw ValidationError("--width and --height must be more than 0.") }
  }
}

/// How many pictures are drawn, and where they go.
protocol DrawnOptions: ParsableArguments {
  /// Pictures in the same passes.
  var count: Int { get }
  /// What everything random follows from; nil: a random one.
  var seed: UInt64? { get }
  /// How clips of many frames are drawn; nil: in one window. There are none without an implementation.
  func frameWindows() throws -> FrameWindows?
  /// Prompts of later frames; none without an implementation.
  var laterPrompts: [FramePrompt] { get }
  /// What becomes of a drawing under way.
  var keeping: KeepingOptions { get }
}

extension DrawnOptions {
  func frameWindows() -> FrameWindows? { nil }
  var laterPrompts: [FramePrompt] { [] }
}

/// For commands that draw pictures.
struct PictureOptions: DrawnOptions {
  @OptionGroup(title: "Sampling") var seeds: SeedOptions
  @OptionGroup(title: "Output") var output: OutputOptions
  @OptionGroup(title: "Output") var keeping: KeepingOptions
  @OptionGroup(title: "Sampling") var like: LikeOptions
  @OptionGroup(title: "Sampling") var fast: FastOptions

  var count: Int { seeds.count }
  var seed: UInt64? { seeds.seed }
}

struct SeedOptions: ParsableArguments {
  @Option(
    parsing: .unconditional, help: "Everything random follows from it. Without it, a random one, which is printed.",
    transform: SeedOptions.parsed)
  var seed: UInt64?

  @Option(parsing: .unconditional, help: "Pictures, all in the same passes. More than one are numbered: out-1.png, out-2.png …")
  var count = 1

  @Option(
    parsing: .unconditional,
    help: """
      Standard normal noise to start from, in place of the seed's: a float32 tensor [count, 4, h, w], of clips [count, 4, frames, h, w], named noise or the \
      only one.
      """)
  var loadNoise: String?

  static func parsed(_ text: String) throws -> UInt64 {
    guard let seed = UInt64(text) else { throw ValidationError("--seed must be a whole number from 0 to \(UInt64.max).") }
    return seed
  }

  func validate() throws {
    guard (1...1000).contains(count) else { throw ValidationError("--count must be from 1 to 1000.") }
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
    help:
      "With --step-cache: 0 reuses deep features as they were, 1 lets them go on changing as before, which is nearer to the full picture.")
  var stepCacheOrder: Int?

  @Option(
    parsing: .unconditional,
    help: "Faster for large pictures, and a little another picture: the part of the tokens, 0…0.75, that self-attention does without.")
  var mergeTokens: Double?

  @Option(
    parsing: .unconditional,
    help: """
      Faster, and a little another picture: after the first three steps the model is asked only every so many steps, and what it would say between follows \
      from its answers before. 2 saves nearly half, and goes with --step-cache 2.
      """)
  var forecast: Int?

  func validate() throws {
    guard (1...100_000).contains(forecast ?? 1) else { throw ValidationError("--forecast must be from 1 to 100000.") }
    guard (1...100_000).contains(stepCache ?? 1) else { throw ValidationError("--step-cache must be from 1 to 100000.") }
    guard (0...1).contains(stepCacheOrder ?? 0) else { throw ValidationError("--step-cache-order must be 0 or 1.") }
    guard stepCacheOrder == nil || stepCache != nil else { throw ValidationError("--step-cache-order must be given beside --step-cache.") }
    let range = Shortcuts.tokenMergingRange
    guard range.contains(mergeTokens ?? 0) else { throw ValidationError("--merge-tokens must be a number from 0 to \(range.upperBound).") }
  }

  var stepCaching: StepCaching? { stepCache.map { StepCaching(interval: $0, order: stepCacheOrder ?? 0) } }

  func apply(to request: inout GenerationRequest) {
    request.stepCaching = stepCaching
    request.tokenMerging = mergeTokens
    request.forecast = forecast.map { PredictionForecast(interval: $0) }
  }

  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] {
    let all = [
      ("Step cache interval", stepCache.map { "\($0)" }), ("Step cache order", stepCacheOrder.map { "\($0)" }),
      ("Token merging ratio", mergeTokens.map { "\($0)" }),
      ("Forecast interval", forecast.map { "\($0)" }),
    ]
    return all.compactMap { name, value in value.map { .init(name, $0) } }
  }
}

struct OutputOptions: ParsableArguments {
  @Option(
    name: [.customShort("o"), .long], parsing: .unconditional,
    help: "Where the picture goes: a .png, .jpg or .webp file, or - for a PNG on standard output. A PNG also says how it was made.")
  var output: String

  @Option(
    parsing: .unconditional,
    help: "Where the latents go, as they are before decoding: one tensor latents, float32, [count, 4, h, w].")
  var saveLatents: String?

  @Option(
    parsing: .unconditional,
    help: "Where the picture goes before it is rounded: one tensor image, float32, [count, H, W, 3], 0…1.")
  var saveImageTensor: String?

  /// Whether the picture goes to standard output.
  var isStandardOutput: Bool { output == "-" }

  /// Reports errors before the work begins, not after it.
  func check(count: Int) throws {
    for path in [saveLatents, saveImageTensor] where path == "-" {
      throw Failure("A tensor cannot go to standard output; give the name of a file.")
    }
    if isStandardOutput, count > 1 {
      throw Failure("\(count) pictures cannot go to standard output; give the name of a file, or ask for one.")
    }
    for url in isStandardOutput ? [] : pictures(count) {
      _ = try PictureFormat(extensionOf: url)
      try checkWritable(url)
    }
    for path in [saveLatents, saveImageTensor].compactMap({ $0 }) { try checkWritable(URL(filePath: path)) }
  }

  /// Writes a picture to its file, or to standard output.
  /// - Parameter parameters: a text that tells how the picture was made.
  func write(_ picture: Picture, to file: URL, parameters: String? = nil) throws {
    guard isStandardOutput else {
      do { return try picture.write(to: file, parameters: parameters) } catch ImageFileError.notEncodable {
        // A picture that took long must not be lost for a text that is too long for its format.
        try picture.write(to: file)
        return Progress.warn("\(file.relativePath) does not say how it was made: the text is too long for its format.")
      }
    }
    let data = try picture.pngData(parameters: parameters)
    do { try FileHandle.standardOutput.write(contentsOf: data) } catch { throw Failure("Standard output cannot be written.") }
  }

  /// The file itself for one picture, numbered files for more.
  func pictures(_ count: Int) -> [URL] {
    let url = URL(filePath: output)
    guard count > 1 else { return [url] }
    let name = url.deletingPathExtension().lastPathComponent
    return (1...count).map { url.deletingLastPathComponent().appending(path: "\(name)-\($0).\(url.pathExtension)") }
  }
}

/// - Throws: a `Failure` if a file cannot be written there.
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
