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
  /// DPM-Solver-2 (Karras et al. 2022), two predictions a step.
  case kdpm2 = "dpm2"
  /// DPM-Solver-2 with fresh noise at each step (Crowson's k-diffusion).
  case kdpm2Ancestral = "dpm2-a"
  /// DPM-Solver++ 2S with fresh noise at each step (Crowson's k-diffusion), two predictions a step.
  case dpmSolver2SAncestral = "dpmpp-2s-a"
  /// DPM-Solver++ on the SDE (Crowson's k-diffusion), two predictions a step.
  case dpmSolverSDE = "dpmpp-sde"
  /// DPM-Solver++ 3M on the SDE (Crowson's k-diffusion).
  case dpmSolver3MSDE = "dpmpp-3m-sde"
  /// RES (Zhang et al. 2023) and ER-SDE (Cui et al. 2023), as ComfyUI has them.
  case resMultistep = "res-multistep", erSDE = "er-sde"
  /// Heun's method that goes back to more noise (Xu et al. 2023), as the webui has it, and one that looks two steps ahead, as ComfyUI has it.
  case restart, heunPP2 = "heunpp2"
  /// DPM-Solver++ in groups of steps (Lu et al. 2022).
  case dpmSolverSinglestep = "dpmpp-singlestep"
  /// DEIS (Zhang and Chen 2022), SA-Solver (Xue et al. 2023).
  case deis, saSolver = "sa-solver"
  /// For models of trajectory consistency distillation (Zheng et al. 2024).
  case tcd
  /// For networks of Karras' preconditioning (Karras et al. 2022).
  case edmEuler = "edm-euler", edmDPMSolverMultistep = "edm-dpmpp-2m"
  /// For networks that predict v on a circle (v-diffusion).
  case ipndm
  /// For consistency models (Song et al. 2023).
  case cmStochasticIterative = "cm"
  /// From a picture to its noise (Mokady et al. 2022; Lu et al. 2022).
  case ddimInverse = "ddim-inverse", dpmSolverMultistepInverse = "dpmpp-2m-inverse"

  /// Whether it leads from noise to a picture; the inverse ones lead back.
  public var leadsToPictures: Bool { ![.ddimInverse, .dpmSolverMultistepInverse].contains(self) }
  /// Whether it is for any network that predicts ε, x₀ or v, and draws pictures.
  public var isGeneral: Bool { leadsToPictures && ![.edmEuler, .edmDPMSolverMultistep, .ipndm, .cmStochasticIterative].contains(self) }

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

  /// diffusers' class; nil for samplers that only k-diffusion and ComfyUI have.
  public var className: String? {
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
    case .kdpm2: "KDPM2DiscreteScheduler"
    case .kdpm2Ancestral: "KDPM2AncestralDiscreteScheduler"
    case .dpmSolver2SAncestral, .dpmSolver3MSDE, .resMultistep, .erSDE, .restart, .heunPP2: nil
    case .dpmSolverSDE: "DPMSolverSDEScheduler"
    case .dpmSolverSinglestep: "DPMSolverSinglestepScheduler"
    case .deis: "DEISMultistepScheduler"
    case .saSolver: "SASolverScheduler"
    case .tcd: "TCDScheduler"
    case .edmEuler: "EDMEulerScheduler"
    case .edmDPMSolverMultistep: "EDMDPMSolverMultistepScheduler"
    case .ipndm: "IPNDMScheduler"
    case .cmStochasticIterative: "CMStochasticIterativeScheduler"
    case .ddimInverse: "DDIMInverseScheduler"
    case .dpmSolverMultistepInverse: "DPMSolverMultistepInverseScheduler"
    }
  }

  /// The spacings of σ that it can be asked for. Where none is chosen, σ follows the training table.
  public var sigmaSpacings: [SigmaSpacing] {
    switch self {
    case .ddpm, .ddim, .pndm, .lcm, .tcd, .ipndm, .cmStochasticIterative, .ddimInverse: []
    case .edmEuler, .edmDPMSolverMultistep: SigmaSpacing.allCases.filter { !$0.readsTable && $0 != .lu }
    case .dpmSolverMultistepInverse: [.karras, .exponential, .beta]
    case .restart: [.karras]
    case .dpmSolverMultistep: SigmaSpacing.allCases
    default: SigmaSpacing.allCases.filter { $0 != .lu }
    }
  }

  /// The spacings of timesteps that it can be asked for.
  public var timestepSpacings: [TimestepSpacing] {
    switch self {
    case .lcm, .tcd, .ipndm, .cmStochasticIterative, .edmEuler, .edmDPMSolverMultistep, .dpmSolverSinglestep: []
    case .ddimInverse: [.leading, .trailing]
    default: TimestepSpacing.allCases
    }
  }

  /// Whether a spacing of σ decides on the timesteps alone, so that their own spacing has no effect.
  private var derivesTimesteps: Bool {
    [.dpmSolverMultistep, .uniPC, .deis, .saSolver, .dpmSolverMultistepInverse].contains(self)
  }

  /// The settings of a run that change something, by their names.
  private var settings: Set<String> {
    let steps: Set<String> =
      switch self {
      case .restart, .ddpm, .ddim, .pndm, .ipndm, .ddimInverse, .dpmSolverMultistepInverse: []
      case .lcm, .tcd: ["timesteps"]
      case .edmEuler, .edmDPMSolverMultistep, .cmStochasticIterative: ["sigmas"]
      default: ["sigmas", "timesteps"]
      }
    switch self {
    case .ddim, .tcd, .saSolver: return steps.union(["eta"])
    case .euler, .edmEuler: return steps.union(["s_churn", "s_noise", "s_tmin", "s_tmax"])
    case .eulerAncestral, .kdpm2Ancestral, .dpmSolver2SAncestral, .dpmSolverSDE, .dpmSolver3MSDE, .resMultistep:
      return steps.union(["eta", "s_noise"])
    case .erSDE, .cmStochasticIterative: return steps.union(["s_noise"])
    default: return steps
    }
  }

  /// Says before anything is computed whether the settings of a run change something.
  /// - Throws: `SchedulerError.conflictingSettings`, `missingSetting`, `idleSetting`.
  public func check(_ sampling: SamplingSettings) throws(SchedulerError) {
    let asked = sampling.names
    guard !asked.contains("sigmas") || !asked.contains("timesteps") else { throw .conflictingSettings("sigmas", "timesteps") }
    if let name = asked.first(where: { !settings.contains($0) }) { throw .missingSetting(name, scheduler: self) }
    // Without churn Euler's method draws no noise, and RES draws none without η.
    let drawing = self == .resMultistep ? "eta" : "s_churn"
    guard self == .resMultistep || settings.contains(drawing), !asked.contains(drawing) else { return }
    if let name = asked.first(where: { ["s_noise", "s_tmin", "s_tmax"].contains($0) }) { throw .idleSetting(name, without: drawing) }
  }

  /// A configuration with the spacings that somebody asks for; nil leaves what it says.
  ///
  /// - Parameters:
  ///   - configuration: what the model's file says.
  ///   - sigmas: how σ falls.
  ///   - timesteps: how the steps are spread over the timesteps of training.
  /// - Throws: `SchedulerError.missingSpacing` where the scheduler cannot have the spacing, `idleSpacing` where it would change nothing,
  ///   `conflictingKeys`.
  public func spacing(
    _ configuration: SchedulerConfiguration, sigmas: SigmaSpacing?, timesteps: TimestepSpacing?
  ) throws(SchedulerError) -> SchedulerConfiguration {
    var result = configuration
    if let sigmas {
      guard sigmaSpacings.contains(sigmas) else {
        throw .missingSpacing(sigmas.rawValue, scheduler: self, known: Self.allCases.filter { $0.sigmaSpacings.contains(sigmas) })
      }
      result.spacing = sigmas
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
    try check(configuration.sampling)
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
    case .kdpm2: return try KDPM2DiscreteScheduler(configuration, steps: steps)
    case .kdpm2Ancestral: return try KDPM2AncestralDiscreteScheduler(configuration, steps: steps)
    case .dpmSolver2SAncestral: return try DPMSolver2SAncestralScheduler(configuration, steps: steps)
    case .dpmSolverSDE: return try DPMSolverSDEScheduler(configuration, steps: steps)
    case .dpmSolver3MSDE: return try DPMSolver3MSDEScheduler(configuration, steps: steps)
    case .resMultistep: return try RESMultistepScheduler(configuration, steps: steps)
    case .erSDE: return try ERSDEScheduler(configuration, steps: steps)
    case .restart: return try HeunDiscreteScheduler(restart: configuration, steps: steps)
    case .heunPP2: return try HeunPP2Scheduler(configuration, steps: steps)
    case .dpmSolverSinglestep: return try DPMSolverSinglestepScheduler(configuration, steps: steps)
    case .deis: return try DEISMultistepScheduler(configuration, steps: steps)
    case .saSolver: return try SASolverScheduler(configuration, steps: steps)
    case .tcd: return try TCDScheduler(configuration, steps: steps)
    case .edmEuler: return try EDMEulerScheduler(configuration, steps: steps)
    case .edmDPMSolverMultistep: return try DPMSolverMultistepScheduler(edm: configuration, steps: steps)
    case .ipndm: return try IPNDMScheduler(configuration, steps: steps)
    case .cmStochasticIterative: return try CMStochasticIterativeScheduler(configuration, steps: steps)
    case .ddimInverse: return try DDIMInverseScheduler(configuration, steps: steps)
    case .dpmSolverMultistepInverse: return try DPMSolverMultistepScheduler(inverse: configuration, steps: steps)
    }
  }
}
