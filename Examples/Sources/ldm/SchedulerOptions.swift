import ArgumentParser
import ImageFiles
import LatentDiffusion

extension SigmaSpacing: @retroactive ExpressibleByArgument {}
extension TimestepSpacing: @retroactive ExpressibleByArgument {}
extension BetaSchedule: @retroactive ExpressibleByArgument {}

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
      karras. The names of the webui, "DPM++ 2M SDE Karras", of ComfyUI, dpmpp_2m_sde, and of diffusers' classes are understood.
      """,
    transform: { name in
      do { return try NamedScheduler(name) } catch { throw ValidationError("\(error)") }
    })
  var scheduler: NamedScheduler?

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

  @Option(
    parsing: .unconditional,
    help: "How much noise Euler's method adds before its steps (Karras' S_churn). Without it, that method takes none of the next three.")
  var sChurn: Double?
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
      let name = scheduler.kind.rawValue
      throw ValidationError("\(name)-\(own.rawValue) has the spacing \(own.rawValue); for another, ask for --scheduler \(name).")
    }
    // Errors that no file can change are reported before one is read.
    do {
      var configuration = try scheduler.kind.spacing(SchedulerConfiguration(), sigmas: sigmaSpacing, timesteps: timestepSpacing)
      guard var settings else { return }
      try scheduler.kind.check(settings)
      // Which timesteps there are, the model says.
      settings.timesteps = nil
      configuration.sampling = settings
      _ = try scheduler.kind.make(configuration: configuration, steps: settings.count ?? 20)
    } catch SchedulerError.unusableSteps {
    } catch {
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
