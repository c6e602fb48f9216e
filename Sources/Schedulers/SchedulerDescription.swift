extension SchedulerKind {
  /// The name that the webui and ComfyUI have for it, or else diffusers'.
  public var label: String {
    switch self {
    case .ddpm: "DDPM"
    case .ddim: "DDIM"
    case .pndm: "PLMS"
    case .lms: "LMS"
    case .euler: "Euler"
    case .eulerAncestral: "Euler a"
    case .heun: "Heun"
    case .dpmSolverMultistep: "DPM++ 2M"
    case .uniPC: "UniPC"
    case .lcm: "LCM"
    case .kdpm2: "DPM2"
    case .kdpm2Ancestral: "DPM2 a"
    case .dpmSolver2SAncestral: "DPM++ 2S a"
    case .dpmSolverSDE: "DPM++ SDE"
    case .dpmSolver3MSDE: "DPM++ 3M SDE"
    case .resMultistep: "RES multistep"
    case .erSDE: "ER SDE"
    case .restart: "Restart"
    case .heunPP2: "Heun++ 2"
    case .dpmSolverSinglestep: "DPM++ singlestep"
    case .deis: "DEIS"
    case .saSolver: "SA-Solver"
    case .tcd: "TCD"
    case .edmEuler: "EDM Euler"
    case .edmDPMSolverMultistep: "EDM DPM++ 2M"
    case .ipndm: "IPNDM"
    case .cmStochasticIterative: "CM"
    case .ddimInverse: "DDIM inverse"
    case .dpmSolverMultistepInverse: "DPM++ 2M inverse"
    }
  }

  /// What it is good for, in a few words.
  public var purpose: String {
    switch self {
    case .ddpm: "many steps, as networks are trained; fresh noise at each"
    case .ddim: "plain and repeatable; the base of inversion"
    case .pndm: "the first models' own; 50 steps"
    case .lms: "smooth pictures from 20 to 50 steps"
    case .euler: "plain and quick to settle; 20 to 30 steps"
    case .eulerAncestral: "lively pictures that change with the steps; 20 to 40"
    case .heun: "exact, two predictions a step; 10 to 20 steps"
    case .dpmSolverMultistep: "the usual choice; 15 to 25 steps, best with karras"
    case .uniPC: "few steps, 8 to 20"
    case .lcm: "latent consistency models and their LoRAs; 2 to 8 steps"
    case .kdpm2: "exact, two predictions a step; 10 to 25 steps"
    case .kdpm2Ancestral: "lively, two predictions a step; 15 to 30 steps"
    case .dpmSolver2SAncestral: "lively and sharp, two predictions a step; 15 to 30 steps"
    case .dpmSolverSDE: "rich in detail from few steps, two predictions each; 8 to 20"
    case .dpmSolver3MSDE: "rich in detail from many steps; 30 and more, best with exponential"
    case .resMultistep: "smooth pictures from few steps, 10 to 20"
    case .erSDE: "detail with noise between; 15 to 30 steps"
    case .restart: "exact, with a way back to more noise, two predictions a step; 20 to 40 steps"
    case .heunPP2: "exact, three predictions a step; 8 to 15 steps"
    case .dpmSolverSinglestep: "unguided pictures; 10 to 20 steps"
    case .deis: "few steps, 8 to 20"
    case .saSolver: "detail from few steps with noise between; 10 to 30"
    case .tcd: "models of trajectory consistency distillation; 2 to 8 steps, --eta for detail"
    case .edmEuler: "networks of Karras' preconditioning"
    case .edmDPMSolverMultistep: "networks of Karras' preconditioning; 15 to 25 steps"
    case .ipndm: "networks that predict v on a circle, with timesteps from 1 to 0"
    case .cmStochasticIterative: "consistency models; 1 or 2 steps"
    case .ddimInverse: "from a picture to its noise, for editing by inversion"
    case .dpmSolverMultistepInverse: "from a picture to its noise, in fewer steps"
    }
  }

  /// The scheduler and the spacing of a name as people write it: `Euler a`, `DPM++ 2M Karras`, `dpmpp-2m-karras`. Cases, hyphens and spaces do not matter.
  /// - Returns: nil where there is no such name.
  public static func named(_ name: String) -> (kind: SchedulerKind, spacing: SigmaSpacing?)? {
    let words = plain(name)
    func kind(_ words: String) -> SchedulerKind? { allCases.first { plain($0.rawValue) == words || plain($0.label) == words } }
    if let kind = kind(words) { return (kind, nil) }
    for spacing in SigmaSpacing.allCases {
      for ending in [plain(spacing.rawValue), spacing == .ddimUniform ? "ddim" : plain(spacing.rawValue)] where words.hasSuffix(ending) {
        if let kind = kind(String(words.dropLast(ending.count))) { return (kind, spacing) }
      }
    }
    return nil
  }

  private static func plain(_ name: String) -> String {
    name.lowercased().replacing("++", with: "pp").filter { $0.isLetter || $0.isNumber }
  }
}
