import ArgumentParser
import Foundation
import LatentDiffusion

struct Bench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Times one part of a model, or a whole picture, and tells the peak memory.",
    discussion: """
      Only what the pass needs is loaded, by its role: the predictor is a U-Net or whatever a model has in its place. A pass that trains is a \
      whole step with AdamW: of LoRAs of rank 16, of the whole U-Net, or of the autoencoder. The inputs are noise, and a first pass (of a \
      picture, its first two steps and its decoding) is not counted. --json prints one line: \
      {"peak_bytes": …, "seconds": [one a repeat]}.

      Example: ldm bench --pass picture --steps 20 --json
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

  @Option(
    parsing: .unconditional,
    help: "The ControlNet of the pass controlnet: its folder or a .safetensors file. The shapes that it takes are those of the model.")
  var controlnet: String?

  @Flag(help: "Add the LoRAs of a whole picture in each pass, as a request can, in place of merging them.")
  var addLoras = false

  @Flag(help: "Compute layers again on the way back of a pass that trains: less memory, and about a third more time.")
  var recompute = false

  @Option(
    parsing: .unconditional,
    help:
      "So many of the threads take twice the time for what they do, as slower cores would: how well work is shared between unequal processors."
  )
  var slowedThreads = 0

  @Flag(help: "Print one line of JSON.")
  var json = false

  enum Pass: String, CaseIterable, ExpressibleByArgument {
    case predictor
    case controlnet
    case vaeDecode = "vae-decode"
    case vaeEncode = "vae-encode"
    case text
    case picture
    case trainLora = "train-lora"
    case trainUNet = "train-unet"
    case trainAutoencoder = "train-autoencoder"

    fileprivate var trains: Bool { rawValue.hasPrefix("train-") }
  }

  func validate() throws {
    guard (1...1000).contains(batch) else { throw ValidationError("--batch must be from 1 to 1000.") }
    guard width ?? 1 > 0, height ?? 1 > 0 else { throw ValidationError("--width and --height must be more than 0.") }
    guard (1...10_000).contains(repeats) else { throw ValidationError("--repeats must be from 1 to 10000.") }
    guard (1...100_000).contains(steps ?? 1) else { throw ValidationError("--steps must be from 1 to 100000.") }
    guard steps == nil || pass == .picture else { throw ValidationError("--steps goes with --pass picture alone.") }
    guard (controlnet != nil) == (pass == .controlnet) else {
      throw ValidationError("--pass controlnet goes with --controlnet, and --controlnet with --pass controlnet alone.")
    }
    guard memory.memoryLimit == nil || pass != .controlnet else {
      throw ValidationError("--memory-limit does not go with --pass controlnet: no plan knows a ControlNet's memory.")
    }
    guard memory.memoryLimit == nil || !pass.trains else {
      throw ValidationError("--memory-limit does not go with passes that train: --recompute takes less memory.")
    }
    guard (0..<(model.threads ?? 1024)).contains(slowedThreads) else {
      throw ValidationError("--slowed-threads must be from 0 to fewer than --threads.")
    }
    guard !recompute || pass.trains else { throw ValidationError("--recompute goes with passes that train alone.") }
    guard adapters.settings.isEmpty || pass == .picture else {
      throw ValidationError("--lora and --embedding go with --pass picture alone.")
    }
    guard shortcuts.settings.isEmpty || pass == .picture else {
      throw ValidationError("--step-cache, --forecast and --merge-tokens go with --pass picture alone.")
    }
  }

  private var context: ExecutionContext {
    slowedThreads == 0 ? model.context : ExecutionContext(pool: ThreadPool(threads: model.threads, slowed: slowedThreads))
  }

  func run() async throws {
    let start = ContinuousClock.now
    let work = try await prepared(in: context)
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
  typealias Work = @Sendable (_ isWarmUp: Bool) async throws -> Void
  static let prompt = Prompt("a photograph of an astronaut riding a horse")

  /// Loads what the pass needs.
  private func prepared(in context: ExecutionContext) async throws -> Work {
    switch pass {
    case .picture: return try await picture(in: context)
    case .predictor: return try await part(.prediction, in: context) { GenerationExtent(size: $0, images: 1, rowsPerImage: batch) }
    case .controlnet: return try await part(.control(control(in: context)), in: context)
    case .vaeDecode: return try await part(.decoding, in: context) { GenerationExtent(size: $0, images: batch) }
    case .vaeEncode: return try await part(.encoding, in: context) { GenerationExtent(size: $0, images: batch, encodesPicture: true) }
    case .text: return try await part(.conditioning(Self.prompt), in: context) { GenerationExtent(size: $0, images: batch) }
    case .trainLora, .trainUNet, .trainAutoencoder: return try await training(in: context)
    }
  }

  /// - Parameter extent: of the work, for a plan of the model's memory; nil: the part knows no plan.
  private func part(
    _ work: SamplePass.Work, in context: ExecutionContext, _ extent: ((PixelSize) -> GenerationExtent)? = nil
  ) async throws -> Work {
    let (files, (scale, size)) = (try model.files, try size())
    let plan = try extent.flatMap { extent in try memory.plan(model) { _ in extent(size) } }
    let tiling = try tiles.tiling(scale: scale)
    let pass = try await context.run {
      try SamplePass(
        work, of: files.base, replacing: files.parts, size: size, rows: batch, tiling: tiling, weights: model.weights, plan: plan, in: $0)
    }
    return { _ in try await context.run { try pass.run(in: $0) } }
  }

  private func control(in context: ExecutionContext) async throws -> ControlNetModel {
    guard let controlnet else { throw ValidationError("--pass controlnet needs --controlnet.") }
    return try await context.run { try ControlNetModel.load(from: URL(filePath: controlnet), weights: model.weights, in: $0) }
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

  /// Pixels a side for each latent, and the size of the pictures.
  func size() throws -> (scale: Int, size: PixelSize) {
    let (scale, usual) = try MemoryPlan.usualSize(of: model.files.base, replacing: model.files.parts)
    guard let width = width ?? usual?.width, let height = height ?? usual?.height else { throw GenerationError.noSize }
    return (scale, PixelSize(width: width, height: height))
  }
}

/// The process's peak resident memory.
func peakResidentBytes() -> Int {
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
