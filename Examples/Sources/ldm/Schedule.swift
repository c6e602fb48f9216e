import ArgumentParser
import Foundation
import LatentDiffusion

struct ScheduleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schedule", abstract: "Prints a scheduler's timesteps and sigmas as JSON.",
    discussion: """
      Example: ldm schedule --scheduler dpmpp-2m --spacing karras --steps 20
      """)

  @OptionGroup var options: SchedulerOptions

  @Option(
    parsing: .unconditional,
    help: "Steps. Some schedulers make more predictions than steps. Without it, as many as --sigmas or --timesteps name.")
  var steps: Int?

  @Option(parsing: .unconditional, help: "A scheduler_config.json. Without it, the scheduler's defaults.")
  var config: String?

  @Option(parsing: .unconditional, help: "A model's folder, whose scheduler/scheduler_config.json is read.") var model: String?

  private var count: Int? { steps ?? options.settings?.count }

  func validate() throws {
    guard options.scheduler != nil || config != nil || model != nil else {
      throw ValidationError("Name a scheduler with --scheduler, or give a --config or a --model.")
    }
    guard config == nil || model == nil else {
      throw ValidationError("--config and --model both name a configuration; leave one of them out.")
    }
    guard let count else { throw ValidationError("Missing expected argument '--steps <steps>'") }
    guard (1...100_000).contains(count) else { throw ValidationError("--steps must be from 1 to 100000.") }
  }

  func run() throws {
    let path = config ?? model.map { $0 + "/scheduler/scheduler_config.json" }
    let configuration = try path.map { try SchedulerConfiguration(json: contents($0)) } ?? SchedulerConfiguration()
    let kind = try options.scheduler?.kind ?? SchedulerKind(of: configuration)
    var spaced = try kind.spacing(configuration, sigmas: options.sigmaSpacing, timesteps: options.timestepSpacing)
    spaced.betaSchedule = options.betas?.rawValue ?? spaced.betaSchedule
    spaced.sampling = options.settings ?? spaced.sampling
    if let algorithm = options.scheduler?.algorithm { spaced.use(algorithm) }
    let made = try kind.make(configuration: spaced, steps: count ?? 1)
    try printJSON(Table(timesteps: made.timesteps, sigmas: made.sigmas), isPretty: false)
  }

  private struct Table: Encodable {
    let timesteps, sigmas: [Float]
  }

  private func contents(_ path: String) throws -> Data {
    do { return try Data(contentsOf: URL(filePath: path)) } catch { throw Failure("\(path) cannot be read; give an existing file.") }
  }
}

struct SchedulersCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schedulers", abstract: "Lists the schedulers, what each is good for, and the spacings that it takes.",
    discussion: """
      Example: ldm schedulers
      """)

  @Flag(help: "As JSON.") var json = false

  private struct Row: Encodable {
    let name, label, purpose: String
    let className: String?
    let spacings, timesteps: [String]
  }

  func run() throws {
    let rows = SchedulerKind.allCases.map {
      Row(
        name: $0.rawValue, label: $0.label, purpose: $0.purpose, className: $0.className, spacings: $0.sigmaSpacings.map(\.rawValue),
        timesteps: $0.timestepSpacings.map(\.rawValue))
    }
    if json { return try printJSON(rows, isPretty: true) }
    for kind in SchedulerKind.allCases {
      print("\(kind.rawValue) (\(kind.label)): \(kind.purpose)" + spacings(of: kind))
    }
    print(
      """

      --spacing is any of \(list(SigmaSpacing.allCases)), where nothing else is said.
      --scheduler also takes the webui's names ("DPM++ 2M SDE Karras", "Euler a"), ComfyUI's (dpmpp_2m_sde, euler_ancestral) and diffusers' classes.
      """)
  }

  /// What a scheduler has in place of all spacings.
  private func spacings(of kind: SchedulerKind) -> String {
    let (own, others) = (kind.sigmaSpacings, SigmaSpacing.allCases.filter { !kind.sigmaSpacings.contains($0) })
    if own.isEmpty { return "; no --spacing" }
    if others.isEmpty { return "" }
    return own.count < others.count ? "; --spacing \(list(own))" : "; any --spacing but \(list(others))"
  }

  private func list(_ spacings: [SigmaSpacing]) -> String { spacings.map(\.rawValue).joined(separator: ", ") }
}

/// Prints a value as JSON on standard output.
func printJSON(_ value: some Encodable, isPretty: Bool) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = isPretty ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted] : [.sortedKeys, .withoutEscapingSlashes]
  encoder.nonConformingFloatEncodingStrategy = .convertToString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
  let line = try encoder.encode(value) + Data("\n".utf8)
  do { try FileHandle.standardOutput.write(contentsOf: line) } catch { throw Failure("Standard output cannot be written.") }
}
