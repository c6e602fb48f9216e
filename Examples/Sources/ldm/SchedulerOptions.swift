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

  init(_ kind: SchedulerKind, _ spacing: SigmaSpacing?) { (self.kind, self.spacing) = (kind, spacing) }

  init?(argument: String) {
    guard let (kind, spacing) = SchedulerKind.named(argument) else { return nil }
    (self.kind, self.spacing) = (kind, spacing)
  }

  private static let karras = "dpmpp-2m-karras"

  /// The spacing is left out where no name of this library includes it.
  var description: String { kind == .dpmSolverMultistep && spacing == .karras ? Self.karras : kind.rawValue }

  static var allValueStrings: [String] {
    SchedulerKind.allCases.flatMap { $0 == .dpmSolverMultistep ? [$0.rawValue, karras] : [$0.rawValue] }
  }
}

/// Where the steps lie: a spacing's name, or timesteps with commas between.
enum TimestepChoice: ExpressibleByArgument {
  case spacing(TimestepSpacing)
  case list([Double])

  init?(argument: String) {
    if let spacing = TimestepSpacing(rawValue: argument) {
      self = .spacing(spacing)
    } else if let list = NumberList(argument: argument) {
      self = .list(list.numbers)
    } else {
      return nil
    }
  }

  static var allValueStrings: [String] { TimestepSpacing.allCases.map(\.rawValue) }
}

/// Numbers with commas between.
struct NumberList: ExpressibleByArgument {
  let numbers: [Double]

  init?(argument: String) {
    let numbers = argument.split(separator: ",", omittingEmptySubsequences: false).map { Double($0.trimmingPrefix(" ")) }
    guard !numbers.contains(nil) else { return nil }
    self.numbers = numbers.compactMap(\.self)
  }
}

/// Independent choices. Anything not chosen is as the model's files say.
struct SchedulerOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      The scheduler (ldm schedulers lists them). Without it, the one that the model's files name. dpmpp-2m-karras is short for dpmpp-2m with --spacing \
      karras, and the webui's names, "DPM++ 2M Karras", are understood.
      """)
  var scheduler: SchedulerName?

  @Option(
    parsing: .unconditional,
    help: """
      How the noise levels fall: \(SigmaSpacing.allCases.map(\.rawValue).joined(separator: ", ")); lu for dpmpp-2m alone. Without it, as the model's \
      files say.
      """)
  var spacing: SigmaSpacing?

  @Option(
    parsing: .unconditional,
    help: """
      How the steps are spread over the timesteps of training: linspace, leading or trailing, or the timesteps themselves, 999,750,500,250. Without it, as \
      the model's files say.
      """)
  var timesteps: TimestepChoice?

  @Option(
    parsing: .unconditional, help: "The noise level of each step, falling: 14.6,7,3,1,0.3. It takes the place of --spacing and --timesteps."
  )
  var sigmas: NumberList?

  @Option(
    parsing: .unconditional,
    help: "How much of the noise is fresh, 0 to 1: eta of DDIM, of samplers with an a and of SDE solvers, gamma of TCD, tau of SA-Solver.")
  var eta: Double?

  @Option(parsing: .unconditional, help: "How much noise Euler's method adds before its steps (Karras' S_churn).") var sChurn: Double?
  @Option(parsing: .unconditional, help: "What fresh noise is multiplied by.") var sNoise: Double?
  @Option(parsing: .unconditional, help: "--s-churn counts from this noise level up.") var sTmin: Double?
  @Option(parsing: .unconditional, help: "--s-churn counts up to this noise level.") var sTmax: Double?

  @Option(
    parsing: .unconditional,
    help: """
      How the noise of the training grew: \(BetaSchedule.allCases.map(\.rawValue).joined(separator: ", ")). Without it, as the model's files say. Motion \
      modules (AnimateDiff) were trained with linear.
      """)
  var betas: BetaSchedule?

  /// The requested spacing of noise levels, from its own option or from the scheduler's name.
  var sigmaSpacing: SigmaSpacing? { spacing ?? scheduler?.spacing }

  var timestepSpacing: TimestepSpacing? { if case .spacing(let spacing) = timesteps { spacing } else { nil } }

  /// What the scheduler is asked for beside its steps; nil where nothing is.
  var settings: SamplingSettings? {
    var settings = SamplingSettings()
    (settings.eta, settings.churn, settings.noiseScale) = (eta, sChurn, sNoise)
    (settings.churnMinimum, settings.churnMaximum, settings.sigmas) = (sTmin, sTmax, sigmas?.numbers)
    if case .list(let list) = timesteps { settings.timesteps = list }
    return settings == SamplingSettings() ? nil : settings
  }

  var choosesAny: Bool { scheduler != nil || spacing != nil || timesteps != nil || betas != nil || settings != nil }

  func validate() throws {
    guard let scheduler else { return }
    if let own = scheduler.spacing, let spacing, spacing != own {
      throw ValidationError(
        "\(scheduler.kind.rawValue)-\(own.rawValue) has the spacing \(own.rawValue); for another, ask for --scheduler \(scheduler.kind.rawValue)."
      )
    }
    // Errors that no file can change are reported before one is read.
    do { _ = try scheduler.kind.spacing(SchedulerConfiguration(), sigmas: sigmaSpacing, timesteps: timestepSpacing) } catch {
      throw ValidationError("\(error)")
    }
  }

  /// The settings that are written into pictures. Most have webui's names.
  var writtenSettings: [GenerationParameters.Setting] {
    func text(_ number: Double?) -> String? { number.map { "\($0)" } }
    let all = [
      ("Schedule type", sigmaSpacing?.rawValue), ("Timestep spacing", timestepSpacing?.rawValue), ("Beta schedule", betas?.rawValue),
      ("Eta", text(eta)), ("Sigma churn", text(sChurn)), ("Sigma tmin", text(sTmin)), ("Sigma tmax", text(sTmax)),
      ("Sigma noise", text(sNoise)),
      ("Timesteps", settings?.timesteps.map(list)), ("Sigmas", settings?.sigmas.map(list)),
    ]
    return all.compactMap { name, value in value.map { .init(name, $0) } }
  }

  private func list(_ numbers: [Double]) -> String { numbers.map { "\($0)" }.joined(separator: " ") }
}
