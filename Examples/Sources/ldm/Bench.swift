import ArgumentParser
import Foundation
import LatentDiffusion

struct Bench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Times one part of a model, or a whole picture, and tells the peak memory.",
    discussion: """
      Only what the pass needs is loaded. The inputs are noise, and a first pass (of a picture, its first two steps and its \
      decoding) is not counted. --json prints one line: \
      {"peak_bytes": …, "seconds": [one a repeat]}.
      """)
  @OptionGroup var model: ModelOptions
  @OptionGroup var memory: MemoryOptions
  @OptionGroup var tiles: TileOptions

  @Option(parsing: .unconditional, help: "What to time: \(Pass.allCases.map(\.rawValue).joined(separator: ", ")).")
  var pass: Pass

  @Option(parsing: .unconditional, help: "Rows of the pass: pictures or prompts. Guidance makes two of a picture in the U-Net.")
  var batch = 1

  @Option(parsing: .unconditional, help: "Pixels of the picture. Without it, what the model was made for.")
  var width: Int?

  @Option(parsing: .unconditional, help: "Pixels of the picture. Without it, what the model was made for.")
  var height: Int?

  @Option(parsing: .unconditional, help: "Passes that are counted.")
  var repeats = 5

  @Option(
    parsing: .unconditional,
    help: "Steps of a whole picture. Where the model recommends none, 20 of DPM-Solver++ 2M unless this says otherwise.")
  var steps: Int?

  @OptionGroup(title: "Short cuts of a whole picture") var shortcuts: ShortcutOptions
  @OptionGroup(title: "Adapters of a whole picture") var adapters: AdapterOptions

  @Flag(help: "Add the LoRAs of a whole picture in each pass, as a request can, in place of merging them.")
  var addLoras = false

  @Flag(help: "Print one line of JSON.")
  var json = false

  enum Pass: String, CaseIterable, ExpressibleByArgument {
    case unet
    case vaeDecode = "vae-decode"
    case vaeEncode = "vae-encode"
    case text
    case picture
  }

  func validate() throws {
    guard (1...1000).contains(batch) else { throw ValidationError("--batch must be from 1 to 1000.") }
    guard width ?? 1 > 0, height ?? 1 > 0 else { throw ValidationError("--width and --height must be more than 0.") }
    guard (1...10_000).contains(repeats) else { throw ValidationError("--repeats must be from 1 to 10000.") }
    guard (1...100_000).contains(steps ?? 1) else { throw ValidationError("--steps must be from 1 to 100000.") }
    guard steps == nil || pass == .picture else { throw ValidationError("--steps goes with --pass picture alone.") }
    guard adapters.settings.isEmpty || pass == .picture else {
      throw ValidationError("--lora and --embedding go with --pass picture alone.")
    }
    guard shortcuts.settings.isEmpty || pass == .picture else {
      throw ValidationError("--step-cache and --merge-tokens go with --pass picture alone.")
    }
  }

  func run() async throws {
    let start = ContinuousClock.now
    let work = try await prepared(in: model.context)
    if !json {
      // Written at once, even into a pipe, so that a reader can measure the time from the process's start.
      let loading = String(format: "loaded in %.2f s\n", (ContinuousClock.now - start) / .seconds(1))
      try? FileHandle.standardOutput.write(contentsOf: Data(loading.utf8))
    }
    var seconds: [Double] = []
    for index in 0...repeats {
      let duration = try await ContinuousClock().measure { try await work(index == 0) }
      if index > 0 { seconds.append(duration / .seconds(1)) }
    }
    let report = Report(peak_bytes: peakResidentBytes(), seconds: seconds)
    if json { try printJSON(report, isPretty: false) } else { print(report) }
  }

  private struct Report: Encodable, CustomStringConvertible {
    let peak_bytes: Int
    let seconds: [Double]

    var description: String {
      let sorted = seconds.sorted()
      let median = (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
      let lines = seconds.enumerated().map { String(format: "%d: %.4f s", $0 + 1, $1) }
      return (lines + [String(format: "median %.4f s, peak memory %.2f GB", median, Double(peak_bytes) / 1e9)]).joined(separator: "\n")
    }
  }
}

extension Bench {
  /// The work to time. It is told whether this is the first run, which is not counted.
  private typealias Work = @Sendable (_ isWarmUp: Bool) async throws -> Void
  private static let prompt = Prompt("a photograph of an astronaut riding a horse")

  /// Loads what the pass needs.
  private func prepared(in context: ExecutionContext) async throws -> Work {
    switch pass {
    case .picture: return try await picture(in: context)
    case .text: return try await text(in: context)
    case .unet: return try await unet(in: context)
    case .vaeDecode, .vaeEncode: return try await autoencoder(in: context)
    }
  }

  private func text(in context: ExecutionContext) async throws -> Work {
    let ids = Array(repeating: try tokenizer().encodePadded(Self.prompt.text), count: batch)
    let text = try await load("text_encoder", as: CLIPTextModel.self, in: context)
    return { _ in try await context.run { _ = try text(ids, in: $0) } }
  }

  private func unet(in context: ExecutionContext) async throws -> Work {
    let length = try tokenizer().maximumLength
    let (scale, size) = try size()
    let plan = try memory.plan(model) { _ in GenerationExtent(size: size, images: 1, rowsPerImage: batch) }
    let unet = try await load("unet", as: UNet2DConditionModel.self, plan: plan, in: context)
    let latents = noise([batch, size.height / scale, size.width / scale, unet.inputChannels])
    var conditioning = Conditioning(hiddenStates: noise([batch, length, unet.configuration.contextChannels]))
    let numbers = 6
    conditioning.pooled = unet.configuration.pooledFeatures(besideNumbers: numbers).map { noise([batch, $0]) }
    for input in unet.declaredInputs where input.isRequired {
      conditioning.inputs[input.name] = Tensor(repeating: 1, shape: Shape([batch] + input.shape.map { $0 == 0 ? numbers : $0 }))
    }
    return { [conditioning] _ in
      try await context.run { _ = try unet.predict(latents, timestep: 501, conditioning: conditioning, in: $0) }
    }
  }

  private func autoencoder(in context: ExecutionContext) async throws -> Work {
    let (scale, size) = try size()
    let plan = try memory.plan(model) { _ in GenerationExtent(size: size, images: batch, encodesPicture: pass == .vaeEncode) }
    let base = try await load("vae", as: (any LatentAutoencoder).self, plan: plan, in: context)
    let autoencoder = TiledAutoencoder(base, tiling: try tiles.tiling(scale: scale) ?? plan?.tiling ?? .automatic)
    if pass == .vaeEncode {
      let picture = noise([batch, size.height, size.width, 3]).clamped(to: -1...1)
      return { _ in try await context.run { _ = try autoencoder.encode(picture, in: $0) } }
    }
    let latents = noise([batch, size.height / scale, size.width / scale, autoencoder.latentChannels]) / autoencoder.latentScale
    return { _ in try await context.run { _ = try autoencoder.decode(latents, in: $0) } }
  }

  private func picture(in context: ExecutionContext) async throws -> Work {
    var adapted = try adapters.adapted(by: [])
    let added = addLoras ? adapted.adapters : []
    if addLoras { adapted.adapters = [] }
    let plan = try memory.plan(model, adapters: adapted.adapters) { usual in
      guard let width = width ?? usual?.width, let height = height ?? usual?.height else { return nil }
      return GenerationExtent(size: PixelSize(width: width, height: height), images: batch)
    }
    var loaded = try await model.load(plan: plan, tiles: tiles, adapters: adapted, in: context)
    var request = loaded.request(Self.prompt, seed: 0)
    if loaded.defaults.steps == nil {
      try loaded.use(.dpmSolverMultistep)
      request.steps = 20
    }
    request.steps = steps ?? request.steps
    (request.width, request.height, request.imagesPerPrompt) = (width, height, batch)
    shortcuts.apply(to: &request)
    if !added.isEmpty { request.adaptation = try loaded.adaptation(by: added, in: context).adaptation }
    // Two steps are enough to run everything once.
    var first = request
    first.steps = min(request.steps, 2)
    return { [pipeline = loaded.pipeline, request, first] isWarmUp in
      _ = try await pipeline.images(for: isWarmUp ? first : request, in: context)
    }
  }

  private func tokenizer() throws -> CLIPTokenizer {
    try StableDiffusion.tokenizer(from: model.files.base, replacing: model.files.parts)
  }

  private func load<Component: Sendable>(
    _ name: String, as type: Component.Type, plan: MemoryPlan? = nil, in context: ExecutionContext
  ) async throws -> Component {
    let (files, weights) = (try model.files, model.weights)
    return try await context.run {
      let component = try ModelFiles.open(files.base, replacing: files.parts).component(name, weights: weights, plan: plan, in: $0)
      guard let component = component as? Component else { throw Failure("The model's \(name) is none that can be timed by itself.") }
      return component
    }
  }

  /// Pixels a side for each latent, and the size of the pictures.
  private func size() throws -> (scale: Int, size: PixelSize) {
    let (scale, usual) = try MemoryPlan.usualSize(of: model.files.base, replacing: model.files.parts)
    guard let width = width ?? usual?.width, let height = height ?? usual?.height else { throw GenerationError.noSize }
    guard width.isMultiple(of: scale), height.isMultiple(of: scale) else {
      throw GenerationError.indivisibleSize(width: width, height: height, multiple: scale)
    }
    // The count is `Int.max` if the product overflows.
    guard Shape([batch, width, height]).count <= GenerationRequest.maximumPixels else {
      throw GenerationError.tooLarge(width: width, height: height, images: batch)
    }
    return (scale, PixelSize(width: width, height: height))
  }
}

/// The same noise every time.
private func noise(_ shape: Shape) -> Tensor {
  var generator = TorchGenerator(seed: 0)
  return Tensor(generator.normal(shape.count), shape: shape)
}

/// The process's peak resident memory.
private func peakResidentBytes() -> Int {
  #if os(Linux)
    // Not `getrusage`, which begins with the peak of the program that started this one.
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") } ?? ""
    return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 } ?? 0
  #else
    var usage = rusage()
    getrusage(RUSAGE_SELF, &usage)
    return usage.ru_maxrss
  #endif
}
