import ArgumentParser
import ImageFiles
import LatentDiffusion

extension SigmaSpacing: @retroactive ExpressibleByArgument {}
extension TimestepSpacing: @retroactive ExpressibleByArgument {}
extension BetaSchedule: @retroactive ExpressibleByArgument {}

/// A scheduler as a command line names it: `dpmpp-2m-karras` is `dpmpp-2m` with Karras' spacing.
struct SchedulerName: ExpressibleByArgument, CustomStringConvertible {
  let kind: SchedulerKind
  /// Nil if the name does not include one.
  let spacing: SigmaSpacing?

  private static let karras = "dpmpp-2m-karras"

  /// The name of a scheduler with a spacing. The spacing is left out if no name includes it.
  init(_ kind: SchedulerKind, _ spacing: SigmaSpacing?) {
    (self.kind, self.spacing) = (kind, kind == .dpmSolverMultistep && spacing == .karras ? .karras : nil)
  }

  init?(argument: String) {
    let isKarras = argument == Self.karras
    guard let kind = isKarras ? .dpmSolverMultistep : SchedulerKind(rawValue: argument) else { return nil }
    self.init(kind, isKarras ? .karras : nil)
  }

  var description: String { spacing == nil ? kind.rawValue : Self.karras }

  static var allValueStrings: [String] {
    SchedulerKind.allCases.flatMap { $0 == .dpmSolverMultistep ? [$0.rawValue, karras] : [$0.rawValue] }
  }
}

/// Three independent choices. Anything not chosen is as the model's files say.
struct SchedulerOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: "The scheduler. Without it, the one that the model's files name. dpmpp-2m-karras is short for dpmpp-2m with --spacing karras.")
  var scheduler: SchedulerName?

  @Option(
    parsing: .unconditional,
    help: """
      How the noise levels fall: karras, exponential or beta for lms, euler, heun, dpmpp-2m and unipc; lu for dpmpp-2m alone. Without it, as the model's \
      files say.
      """)
  var spacing: SigmaSpacing?

  @Option(
    parsing: .unconditional,
    help: "How the steps are spread over the timesteps of training: linspace, leading or trailing. Without it, as the model's files say.")
  var timesteps: TimestepSpacing?

  @Option(
    parsing: .unconditional,
    help: """
      How the noise of the training grew: \(BetaSchedule.allCases.map(\.rawValue).joined(separator: ", ")). Without it, as the model's files say. Motion \
      modules (AnimateDiff) were trained with linear.
      """)
  var betas: BetaSchedule?

  /// The requested spacing of noise levels, from its own option or from the scheduler's name.
  var sigmas: SigmaSpacing? { spacing ?? scheduler?.spacing }

  var choosesAny: Bool { scheduler != nil || spacing != nil || timesteps != nil || betas != nil }

  func validate() throws {
    guard let scheduler else { return }
    if let own = scheduler.spacing, let spacing, spacing != own {
      throw ValidationError("\(scheduler) has the spacing \(own.rawValue); for another, ask for --scheduler \(scheduler.kind.rawValue).")
    }
    // Errors that no file can change are reported before one is read.
    do { _ = try scheduler.kind.spacing(SchedulerConfiguration(), sigmas: sigmas, timesteps: timesteps) } catch {
      throw ValidationError("\(error)")
    }
  }

  /// The settings that are written into pictures. The first has webui's name.
  var settings: [GenerationParameters.Setting] {
    let all = [("Schedule type", sigmas?.rawValue), ("Timestep spacing", timesteps?.rawValue), ("Beta schedule", betas?.rawValue)]
    return all.compactMap { name, value in value.map { .init(name, $0) } }
  }
}
