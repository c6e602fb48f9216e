/// What a scheduler's name asks for: the scheduler, and what of its configuration the name says.
///
/// Names are those of this library, diffusers' classes, and the names that stable-diffusion-webui and ComfyUI have: `euler-a`,
/// `EulerAncestralDiscreteScheduler`, `Euler a`, `euler_ancestral`; `DPM++ 2M Karras`, `dpmpp-2m-karras`, `dpmpp_2m_sde`. Cases, hyphens, underscores and
/// spaces do not matter.
public struct NamedScheduler: Sendable, Equatable {
  /// Which.
  public let kind: SchedulerKind
  /// How σ falls; nil where the name does not say it.
  public let spacing: SigmaSpacing?
  /// Which of the solver's algorithms it is; nil where the name does not say it.
  public let algorithm: SolverAlgorithm?

  /// Nothing but a scheduler, and a spacing.
  public init(_ kind: SchedulerKind, _ spacing: SigmaSpacing? = nil, _ algorithm: SolverAlgorithm? = nil) {
    (self.kind, self.spacing, self.algorithm) = (kind, spacing, algorithm)
  }

  /// - Throws: `SchedulerError.unknownScheduler`, and `leftOut` for samplers of other programs that this library does not have.
  public init(_ name: String) throws(SchedulerError) {
    if let kind = try? SchedulerKind(named: name) {
      self.init(kind)
      return
    }
    let words = Self.plain(name)
    if let own = SigmaSpacing.allCases.lazy.compactMap({ Self.own(name, $0) }).first ?? Self.sampler(words) {
      self = own
      return
    }
    for spacing in SigmaSpacing.allCases {
      for ending in [Self.plain(spacing.rawValue), spacing == .ddimUniform ? "ddim" : Self.plain(spacing.rawValue)]
      where words.hasSuffix(ending) {
        guard let found = Self.sampler(String(words.dropLast(ending.count))) else { continue }
        self.init(found.kind, spacing, found.algorithm)
        return
      }
    }
    throw ["dpmfast", "dpmadaptive"].contains(words) ? .leftOut(name) : .unknownScheduler(name)
  }

  /// The shortest name of this library that says the same; the spacing is left out where no name of this library has it.
  public var name: String {
    if kind == .uniPC, algorithm?.solver == "bh2" { return "unipc-bh2" }
    guard kind == .dpmSolverMultistep else { return kind.rawValue }
    let isKarras = spacing == .karras
    if algorithm == .deterministic { return kind.label + (isKarras ? " Karras" : "") }
    let solver = algorithm == .stochastic ? "-sde" : algorithm == .stochasticByHeun ? "-sde-heun" : ""
    return kind.rawValue + solver + (isKarras ? "-karras" : "")
  }

  /// This library's name with this library's name of a spacing, which says nothing of the algorithm.
  private static func own(_ name: String, _ spacing: SigmaSpacing) -> NamedScheduler? {
    guard name.hasSuffix("-" + spacing.rawValue) else { return nil }
    return SchedulerKind(rawValue: String(name.dropLast(spacing.rawValue.count + 1))).map { NamedScheduler($0, spacing) }
  }

  /// The sampler of another program.
  private static func sampler(_ words: String) -> NamedScheduler? {
    switch words {
    case "dpmpp2m": NamedScheduler(.dpmSolverMultistep, nil, .deterministic)
    case "dpmpp2msde": NamedScheduler(.dpmSolverMultistep, nil, .stochastic)
    case "dpmpp2msdeheun": NamedScheduler(.dpmSolverMultistep, nil, .stochasticByHeun)
    case "unipcbh2": NamedScheduler(.uniPC, nil, SolverAlgorithm(solver: "bh2"))
    default:
      SchedulerKind.allCases.first { plain($0.rawValue) == words || plain($0.label) == words }.map { NamedScheduler($0) }
    }
  }

  private static func plain(_ name: String) -> String {
    name.lowercased().replacing("++", with: "pp").filter { $0.isLetter || $0.isNumber }.replacing("ancestral", with: "a")
  }
}

/// One of the algorithms that a solver has.
public struct SolverAlgorithm: Sendable, Equatable {
  /// `algorithm_type`; nil leaves what the configuration says.
  public var type: String?
  /// `solver_type`; nil leaves what the configuration says.
  public var solver: String?

  /// - Parameters:
  ///   - type: `algorithm_type`.
  ///   - solver: `solver_type`.
  public init(type: String? = nil, solver: String? = nil) { (self.type, self.solver) = (type, solver) }

  /// DPM-Solver++ on the ODE: `DPM++ 2M` of the webui.
  public static let deterministic = SolverAlgorithm(type: DPMSolverAlgorithm.plusPlus.rawValue)
  /// DPM-Solver++ on the SDE: `DPM++ 2M SDE`. The webui's noise is that of a Brownian path, here it is the generator's, as in diffusers.
  public static let stochastic = SolverAlgorithm(
    type: DPMSolverAlgorithm.stochasticPlusPlus.rawValue, solver: DPMSolverType.midpoint.rawValue)
  /// The same by Heun's rule: `DPM++ 2M SDE Heun`.
  public static let stochasticByHeun = SolverAlgorithm(
    type: DPMSolverAlgorithm.stochasticPlusPlus.rawValue, solver: DPMSolverType.heun.rawValue)
}

extension SchedulerConfiguration {
  /// Takes an algorithm in the place of what it says.
  public mutating func use(_ algorithm: SolverAlgorithm) {
    (algorithmType, solverType) = (algorithm.type ?? algorithmType, algorithm.solver ?? solverType)
  }
}
