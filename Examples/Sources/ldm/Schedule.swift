import ArgumentParser
import Foundation
import LatentDiffusion

struct ScheduleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schedule", abstract: "Prints a scheduler's timesteps and sigmas as JSON.")

  @OptionGroup var options: SchedulerOptions

  @Option(parsing: .unconditional, help: "Steps. Some schedulers make more predictions than steps.")
  var steps: Int

  @Option(parsing: .unconditional, help: "A scheduler_config.json. Without it, the scheduler's defaults.")
  var config: String?

  func validate() throws {
    guard options.scheduler != nil || config != nil else { throw ValidationError("Name a scheduler with --scheduler, or give a --config.") }
    guard (1...100_000).contains(steps) else { throw ValidationError("--steps must be from 1 to 100000.") }
  }

  func run() throws {
    let configuration = try config.map { try SchedulerConfiguration(json: contents($0)) } ?? SchedulerConfiguration()
    let kind = try options.scheduler?.kind ?? SchedulerKind(of: configuration)
    var spaced = try kind.spacing(configuration, sigmas: options.sigmas, timesteps: options.timesteps)
    spaced.betaSchedule = options.betas?.rawValue ?? spaced.betaSchedule
    let made = try kind.make(configuration: spaced, steps: steps)
    try printJSON(Table(timesteps: made.timesteps, sigmas: made.sigmas), isPretty: false)
  }

  private struct Table: Encodable {
    let timesteps, sigmas: [Float]
  }

  private func contents(_ path: String) throws -> Data {
    do { return try Data(contentsOf: URL(filePath: path)) } catch { throw Failure("\(path) cannot be read; give an existing file.") }
  }
}

/// Prints a value as JSON on standard output.
func printJSON(_ value: some Encodable, isPretty: Bool) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = isPretty ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted] : [.sortedKeys, .withoutEscapingSlashes]
  encoder.nonConformingFloatEncodingStrategy = .convertToString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
  let line = try encoder.encode(value) + Data("\n".utf8)
  do { try FileHandle.standardOutput.write(contentsOf: line) } catch { throw Failure("Standard output cannot be written.") }
}
