import LatentDiffusionComponents

/// The schedulers that can be asked for by name; the raw values are the names.
public enum SchedulerKind: String, CaseIterable, Sendable {
  /// DDPM (Ho et al. 2020), DDIM (Song et al. 2020), PNDM (Liu et al. 2022), LMS (Crowson's k-diffusion), Euler (Karras et al. 2022).
  case ddpm, ddim, pndm, lms, euler
  /// Euler's method with fresh noise at each step (Crowson's k-diffusion).
  case eulerAncestral = "euler-a"
  /// Heun's method: two predictions a step (Karras et al. 2022).
  case heun
  /// DPM-Solver++ 2M (Lu et al. 2022).
  case dpmSolverMultistep = "dpmpp-2m"
  /// UniPC (Zhao et al. 2023).
  case uniPC = "unipc"
  /// For latent consistency models (Luo et al. 2023).
  case lcm

  static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }

  /// The scheduler of a name, `euler-a`, or of a diffusers class, `EulerAncestralDiscreteScheduler`.
  /// - Throws: `SchedulerError.unknownScheduler`.
  public init(named name: String) throws(SchedulerError) {
    guard let kind = SchedulerKind(rawValue: name) ?? Self.allCases.first(where: { $0.className == name }) else {
      throw .unknownScheduler(name)
    }
    self = kind
  }

  /// The scheduler that a configuration was written for (`_class_name`).
  /// - Throws: `SchedulerError.missingClassName`, `unknownScheduler`.
  public init(of configuration: SchedulerConfiguration) throws(SchedulerError) {
    guard let name = configuration.className else { throw .missingClassName }
    try self.init(named: name)
  }

  /// diffusers' class.
  public var className: String {
    switch self {
    case .ddpm: "DDPMScheduler"
    case .ddim: "DDIMScheduler"
    case .pndm: "PNDMScheduler"
    case .lms: "LMSDiscreteScheduler"
    case .euler: "EulerDiscreteScheduler"
    case .eulerAncestral: "EulerAncestralDiscreteScheduler"
    case .heun: "HeunDiscreteScheduler"
    case .dpmSolverMultistep: "DPMSolverMultistepScheduler"
    case .uniPC: "UniPCMultistepScheduler"
    case .lcm: "LCMScheduler"
    }
  }

  /// The spacings of σ that diffusers' class has. Where none is chosen, σ follows the training table.
  public var sigmaSpacings: [SigmaSpacing] {
    switch self {
    case .ddpm, .ddim, .pndm, .eulerAncestral, .lcm: []
    case .lms, .euler, .heun, .uniPC: [.karras, .exponential, .beta]
    case .dpmSolverMultistep: SigmaSpacing.allCases
    }
  }

  /// The spacings of timesteps that diffusers' class has.
  public var timestepSpacings: [TimestepSpacing] { self == .lcm ? [] : TimestepSpacing.allCases }

  /// Whether a spacing of σ decides on the timesteps alone, so that their own spacing has no effect.
  private var derivesTimesteps: Bool { self == .dpmSolverMultistep || self == .uniPC }

  /// A configuration with the spacings that somebody asks for; nil leaves what it says.
  ///
  /// - Parameters:
  ///   - configuration: what the model's file says.
  ///   - sigmas: how σ falls.
  ///   - timesteps: how the steps are spread over the timesteps of training.
  /// - Throws: `SchedulerError.missingSpacing` where diffusers' class does not have the spacing, `idleSpacing` where it would change nothing,
  ///   `conflictingKeys`.
  public func spacing(
    _ configuration: SchedulerConfiguration, sigmas: SigmaSpacing?, timesteps: TimestepSpacing?
  ) throws(SchedulerError) -> SchedulerConfiguration {
    var result = configuration
    if let sigmas {
      guard sigmaSpacings.contains(sigmas) else {
        throw .missingSpacing(sigmas.rawValue, scheduler: self, known: Self.allCases.filter { $0.sigmaSpacings.contains(sigmas) })
      }
      (result.useKarrasSigmas, result.useExponentialSigmas) = (sigmas == .karras, sigmas == .exponential)
      (result.useBetaSigmas, result.useLuLambdas) = (sigmas == .beta, sigmas == .lu)
    }
    if let timesteps {
      guard timestepSpacings.contains(timesteps) else {
        throw .missingSpacing(timesteps.rawValue, scheduler: self, known: Self.allCases.filter { $0.timestepSpacings.contains(timesteps) })
      }
      if derivesTimesteps, let sigmas = try SigmaSpacing(result, lu: sigmaSpacings.contains(.lu)) {
        throw .idleSpacing(timesteps.rawValue, scheduler: self, beside: sigmas.rawValue)
      }
      result.timestepSpacing = timesteps.rawValue
    }
    return result
  }

  /// The scheduler with its tables for a number of steps.
  ///
  /// The configuration may be another scheduler's: keys that both know are carried over, all others take this one's defaults, as
  /// with diffusers' `from_config`.
  /// - Parameters:
  ///   - configuration: `scheduler_config.json`.
  ///   - steps: as the scheduler's own initialiser takes them.
  /// - Throws: `SchedulerError`.
  public func make(configuration: SchedulerConfiguration, steps: Int) throws(SchedulerError) -> any Scheduler {
    switch self {
    case .ddpm: return try DDPMScheduler(configuration, steps: steps)
    case .ddim: return try DDIMScheduler(configuration, steps: steps)
    case .pndm: return try PNDMScheduler(configuration, steps: steps)
    case .lms: return try LMSDiscreteScheduler(configuration, steps: steps)
    case .euler: return try EulerDiscreteScheduler(configuration, steps: steps)
    case .eulerAncestral: return try EulerAncestralDiscreteScheduler(configuration, steps: steps)
    case .heun: return try HeunDiscreteScheduler(configuration, steps: steps)
    case .dpmSolverMultistep: return try DPMSolverMultistepScheduler(configuration, steps: steps)
    case .uniPC: return try UniPCMultistepScheduler(configuration, steps: steps)
    case .lcm: return try LCMScheduler(configuration, steps: steps)
    }
  }
}
