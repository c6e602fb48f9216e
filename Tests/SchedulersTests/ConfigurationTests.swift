import LatentDiffusionComponents
import Foundation
import Schedulers
import Tensor
import LatentDiffusionTestSupport
import Testing

/// What files and people can ask for, sensible or not.
@Suite struct ConfigurationTests {
  private func configuration(_ json: String) throws(SchedulerError) -> SchedulerConfiguration {
    try SchedulerConfiguration(json: Data(json.utf8))
  }

  /// Whatever lies between, a scheduler ends with no noise, or with the least that a network was trained with.
  @Test func everySpacingLeadsToAPicture() throws {
    for kind in SchedulerKind.allCases where kind.leadsToPictures {
      for spacing in kind.sigmaSpacings {
        let configuration = try kind.spacing(SchedulerConfiguration(), sigmas: spacing, timesteps: nil)
        let last = try #require(kind.make(configuration: configuration, steps: 12).sigmas.last)
        #expect(last <= 0.02, "\(kind), \(spacing): \(last)")
      }
    }
  }

  /// A list of timesteps takes the place of a spacing that a file asks for.
  @Test(arguments: [SchedulerKind.euler, .dpmSolverMultistep, .deis]) func listsTakeThePlaceOfSpacings(_ kind: SchedulerKind) throws {
    var configuration = SchedulerConfiguration()
    configuration.useKarrasSigmas = true
    configuration.sampling.timesteps = [999, 500, 100]
    #expect(try kind.make(configuration: configuration, steps: 3).timesteps == [999, 500, 100])
    configuration.useFlowSigmas = true
    if kind != .euler { #expect(throws: SchedulerError.self) { try kind.make(configuration: configuration, steps: 3) } }
  }

  @Test func readsWhatDiffusersWrites() throws {
    let read = try configuration(
      """
      {"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.42.1", "beta_end": 0.012, "beta_schedule": "scaled_linear",
       "lambda_min_clipped": -Infinity, "prediction_type": "v_prediction", "sigma_min": null, "solver_order": 2, "trained_betas": null,
       "use_karras_sigmas": true, "num_train_timesteps": 1000, "a_key_of_the_future": {"x": [1]}}
      """)
    #expect(read.className == "DPMSolverMultistepScheduler")
    #expect(read.lambdaMinClipped == -.infinity)
    #expect(read.betaEnd == 0.012 && read.betaStart == nil && read.trainedBetas == nil && read.useKarrasSigmas == true)
    let kind = try SchedulerKind(of: read)
    #expect(kind == .dpmSolverMultistep)
    let own = try kind.make(configuration: read, steps: 12)
    var plain = read
    plain.useKarrasSigmas = nil
    let asked = try kind.make(configuration: kind.spacing(plain, sigmas: .karras, timesteps: nil), steps: 12)
    #expect(own.timesteps == asked.timesteps && own.sigmas == asked.sigmas)
  }

  @Test func namesAndClasses() throws {
    let names = [
      "ddpm", "ddim", "pndm", "lms", "euler", "euler-a", "heun", "dpmpp-2m", "unipc", "lcm", "dpm2", "dpm2-a", "dpmpp-2s-a", "dpmpp-sde",
      "dpmpp-3m-sde", "res-multistep", "er-sde", "restart", "heunpp2", "dpmpp-singlestep", "deis", "sa-solver", "tcd", "edm-euler",
      "edm-dpmpp-2m", "ipndm", "cm",
      "ddim-inverse",
      "dpmpp-2m-inverse",
    ]
    #expect(SchedulerKind.allCases.map(\.rawValue) == names)
    for kind in SchedulerKind.allCases {
      if let name = kind.className { #expect(try SchedulerKind(named: name) == kind) }
    }
    #expect(throws: SchedulerError.unknownScheduler("Euler")) { try SchedulerKind(named: "Euler") }
    #expect(throws: SchedulerError.missingClassName) { try SchedulerKind(of: SchedulerConfiguration()) }
    #expect("\(SchedulerError.unknownScheduler("dpm"))".hasSuffix("known are \(names.joined(separator: ", "))."))
  }

  /// A spacing that is asked for is what the file's key turns on, in place of any other, and is refused where diffusers' class lacks it.
  @Test(arguments: SchedulerKind.allCases)
  func spacingsAreChosenOrRefused(_ kind: SchedulerKind) throws {
    func table(_ configuration: SchedulerConfiguration) throws -> [Float] {
      let made = try kind.make(configuration: configuration, steps: 7)
      return made.timesteps + made.sigmas
    }
    let keys: [SigmaSpacing: WritableKeyPath<SchedulerConfiguration, Bool?>] = [
      .karras: \.useKarrasSigmas, .exponential: \.useExponentialSigmas, .beta: \.useBetaSigmas, .lu: \.useLuLambdas,
    ]
    for spacing in SigmaSpacing.allCases {
      var file = SchedulerConfiguration()
      if let key = keys[spacing] { file[keyPath: key] = true }
      guard kind.sigmaSpacings.contains(spacing) else {
        let error = #expect(throws: SchedulerError.self) { try kind.spacing(file, sigmas: spacing, timesteps: nil) }
        let start = "The scheduler \(kind.rawValue) does not have the spacing \(spacing.rawValue); those that have it are "
        #expect(error?.description.hasPrefix(start) ?? false)
        // A file that says so is no request.
        #expect(try table(file) == table(SchedulerConfiguration()), "\(spacing)")
        continue
      }
      let asked = try table(kind.spacing(SchedulerConfiguration(), sigmas: spacing, timesteps: nil))
      for key in keys.values {
        var start = SchedulerConfiguration()
        start[keyPath: key] = true
        #expect(try table(kind.spacing(start, sigmas: spacing, timesteps: nil)) == asked, "\(spacing)")
      }
      // Euler ancestral has no key for a spacing, and networks of Karras' preconditioning have another.
      if keys[spacing] != nil, ![.eulerAncestral, .edmEuler, .edmDPMSolverMultistep].contains(kind) {
        #expect(try table(file) == asked, "\(spacing)")
      }
      // Karras' spacing is what networks of his preconditioning have anyway.
      let isUsual = spacing == .karras && [.edmEuler, .edmDPMSolverMultistep].contains(kind)
      #expect(try (asked == table(SchedulerConfiguration())) == isUsual, "\(spacing)")
    }
    for spacing in TimestepSpacing.allCases {
      var file = SchedulerConfiguration()
      file.timestepSpacing = spacing.rawValue
      if !kind.timestepSpacings.contains(spacing) {
        #expect(throws: SchedulerError.self) { try kind.spacing(file, sigmas: nil, timesteps: spacing) }
      } else {
        #expect(try table(kind.spacing(SchedulerConfiguration(), sigmas: nil, timesteps: spacing)) == table(file))
      }
      guard [.dpmSolverMultistep, .uniPC, .deis, .saSolver, .dpmSolverMultistepInverse].contains(kind) else { continue }
      #expect(throws: SchedulerError.idleSpacing(spacing.rawValue, scheduler: kind, beside: "karras")) {
        try kind.spacing(file, sigmas: .karras, timesteps: spacing)
      }
    }
  }

  /// Names of other programs, with what they say of a solver's algorithm.
  @Test func namesOfOtherPrograms() throws {
    let sde = SolverAlgorithm(type: "sde-dpmsolver++", solver: "midpoint"), heun = SolverAlgorithm(type: "sde-dpmsolver++", solver: "heun")
    let names: [(String, NamedScheduler)] = [
      ("dpmpp-2m", NamedScheduler(.dpmSolverMultistep)), ("dpmpp-2m-karras", NamedScheduler(.dpmSolverMultistep, .karras)),
      ("DPM++ 2M", NamedScheduler(.dpmSolverMultistep, nil, .deterministic)),
      ("DPM++ 2M SDE", NamedScheduler(.dpmSolverMultistep, nil, sde)), ("dpmpp_2m_sde", NamedScheduler(.dpmSolverMultistep, nil, sde)),
      ("DPM++ 2M SDE Karras", NamedScheduler(.dpmSolverMultistep, .karras, sde)),
      ("DPM++ 2M SDE Exponential", NamedScheduler(.dpmSolverMultistep, .exponential, sde)),
      ("DPM++ 2M SDE Heun", NamedScheduler(.dpmSolverMultistep, nil, heun)),
      ("dpmpp-2m-sde-heun-karras", NamedScheduler(.dpmSolverMultistep, .karras, heun)),
      ("Euler a", NamedScheduler(.eulerAncestral)), ("euler_ancestral", NamedScheduler(.eulerAncestral)),
      ("EulerAncestralDiscreteScheduler", NamedScheduler(.eulerAncestral)), ("dpm_2", NamedScheduler(.kdpm2)),
      ("dpm_2_ancestral", NamedScheduler(.kdpm2Ancestral)), ("dpmpp_2s_ancestral", NamedScheduler(.dpmSolver2SAncestral)),
      ("dpmpp_3m_sde", NamedScheduler(.dpmSolver3MSDE)), ("res_multistep", NamedScheduler(.resMultistep)),
      ("uni_pc_bh2", NamedScheduler(.uniPC, nil, SolverAlgorithm(solver: "bh2"))), ("Restart", NamedScheduler(.restart)),
      ("DPM++ SDE Karras", NamedScheduler(.dpmSolverSDE, .karras)), ("Euler SGM Uniform", NamedScheduler(.euler, .sgmUniform)),
      ("Euler Align Your Steps XL", NamedScheduler(.euler, .alignYourStepsXL)), ("euler-gits", NamedScheduler(.euler, .gits)),
    ]
    for (name, expected) in names {
      let named = try NamedScheduler(name)
      #expect(named == expected, "\(name)")
      // Where the name has the spacing, nothing is lost.
      if named.spacing == nil || named.spacing == .karras && named.kind == .dpmSolverMultistep {
        #expect(try NamedScheduler(named.name) == named, "\(name)")
      }
    }
    for name in ["DPM fast", "dpm_adaptive"] { #expect(throws: SchedulerError.leftOut(name)) { try NamedScheduler(name) } }
    for name in ["best", "karras", "", "resmultistep ancestral"] {
      #expect(throws: SchedulerError.unknownScheduler(name)) { try NamedScheduler(name) }
    }
    var configuration = SchedulerConfiguration()
    configuration.solverType = "heun"
    configuration.use(SolverAlgorithm(type: "dpmsolver++"))
    #expect(configuration.algorithmType == "dpmsolver++" && configuration.solverType == "heun")
  }

  /// What a file says of another solver's algorithm means nothing to one that does not have it, and DEIS and UniPC refuse what diffusers refuses.
  @Test func algorithmsOfOtherSolvers() throws {
    func made(_ kind: SchedulerKind, _ json: String) throws -> [Float] {
      var scheduler = try kind.make(configuration: configuration(json), steps: 5)
      var (sample, noise) = (Pseudo.noise, Pseudo.Source() as any NoiseSource)
      for step in scheduler.timesteps.indices {
        let prediction = Pseudo.predict(sample, timestep: scheduler.timesteps[step])
        sample = try scheduler.advance(sample, prediction: prediction, at: step, noise: &noise).sample
      }
      return sample.elements
    }
    let dpm = #""_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "#
    #expect(try made(.saSolver, "{\(dpm) \"dpmsolver++\"}") == made(.saSolver, "{}"))
    #expect(try made(.dpmSolverMultistepInverse, "{\(dpm) \"sde-dpmsolver++\"}") == made(.dpmSolverMultistepInverse, "{}"))
    let sa = #"{"_class_name": "SASolverScheduler", "algorithm_type": "noise_prediction"}"#
    #expect(try made(.dpmSolverMultistep, sa) == made(.dpmSolverMultistep, "{}"))
    #expect(try made(.deis, #"{"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}"#) == made(.deis, "{}"))
    #expect(try made(.uniPC, #"{"solver_p": null}"#) == made(.uniPC, "{}"))
    let refused: [(SchedulerKind, String)] = [
      (.saSolver, #"{"_class_name": "SASolverScheduler", "algorithm_type": "dpmsolver++"}"#), (.saSolver, "{\(dpm) \"fast\"}"),
      (.dpmSolverMultistep, #"{"algorithm_type": "data_prediction"}"#), (.deis, #"{"algorithm_type": "sde-dpmsolver++"}"#),
      (.deis, #"{"solver_type": "euler"}"#), (.uniPC, #"{"solver_p": ["diffusers", "DDIMScheduler"]}"#),
    ]
    for (kind, json) in refused { #expect(throws: SchedulerError.self, "\(kind) \(json)") { try made(kind, json) } }
  }

  /// The webui's way: from 20 steps up, nine are made again, from 36 up a quarter twice.
  @Test func restartsGoBackToMoreNoise() throws {
    for (steps, restarts) in [(19, 0), (20, 1), (35, 1), (36, 2), (50, 2)] {
      let scheduler = try SchedulerKind.restart.make(configuration: configuration(#"{"beta_schedule": "scaled_linear"}"#), steps: steps)
      #expect(scheduler.timesteps.count == 2 * steps - 1)
      #expect(zip(scheduler.sigmas, scheduler.sigmas.dropFirst()).count { $0 < $1 } == restarts, "\(steps)")
    }
  }

  @Test func gitsHasATableForEachCount() throws {
    func sigmas(_ steps: Int) throws -> [Float] {
      let configuration = try SchedulerKind.euler.spacing(SchedulerConfiguration(), sigmas: .gits, timesteps: nil)
      return try SchedulerKind.euler.make(configuration: configuration, steps: steps).sigmas
    }
    #expect(try sigmas(1) == [14.61464119, 0])
    #expect(try sigmas(2) == [14.61464119, 0.803307, 0])
    #expect(try sigmas(4) == [14.61464119, 2.36326075, 0.92192322, 0.36617002, 0])
    // ComfyUI interpolates the logarithms of 20 steps' for more.
    let (twenty, more) = (try sigmas(20), try sigmas(40))
    #expect(more.count == 41 && compare(stride(from: 0, to: 40, by: 2).map { more[$0] }, twenty.dropLast()).error < 1e-6)
    #expect(abs(more[1] - (14.61464119 * 7.49001646 as Float).squareRoot()) < 1e-4)
  }

  @Test func keepsEachClassesDefaults() throws {
    let empty = SchedulerConfiguration()
    let last = try Dictionary(
      uniqueKeysWithValues: SchedulerKind.allCases.map { ($0, try $0.make(configuration: empty, steps: 10).timesteps[0]) })
    #expect(last[.ddim] == 900 && last[.ddpm] == 900 && last[.euler] == 999 && last[.uniPC] == 999 && last[.lcm] == 999)
    // A Stable Diffusion file says nothing of spacing: Euler spreads its steps, DDIM leads.
    #expect(try SchedulerKind.ddim.make(configuration: configuration(#"{"steps_offset": 1}"#), steps: 10).timesteps[0] == 901)
  }

  @Test func timestepsAsDiffusersListsThem() throws {
    let offset = try configuration(#"{"steps_offset": 1}"#)
    #expect(try DDIMScheduler(offset, steps: 5).timesteps == [801, 601, 401, 201, 1])
    let warmUp: [Float] = [901, 851, 851, 801, 801, 751, 751, 701, 701, 651, 651, 601, 601, 501, 401, 301, 201, 101, 1]
    #expect(try PNDMScheduler(offset, steps: 10).timesteps == warmUp)
    #expect(try HeunDiscreteScheduler(offset, steps: 3).timesteps == [999, 499.5, 499.5, 0, 0])
    // NumPy's arange gives 62 here, and a last timestep of −1.
    let trailing = try DDIMScheduler(try configuration(#"{"timestep_spacing": "trailing"}"#), steps: 61).timesteps
    #expect(trailing.count == 61 && trailing.last == 15)
  }

  @Test(arguments: [
    (#"{"num_train_timesteps": 1000000000000}"#, "num_train_timesteps is 1000000000000"),
    (#"{"num_train_timesteps": 0}"#, "num_train_timesteps is 0"),
    (#"{"beta_end": 1.5}"#, "beta_end is 1.5"),
    (#"{"beta_start": NaN}"#, "beta_start is nan"),
    (#"{"beta_start": -0.1}"#, "beta_start is -0.1"),
    (#"{"beta_start": "small"}"#, "beta_start is no number"),
    (#"{"beta_schedule": "quadratic"}"#, "known are linear, scaled_linear, squaredcos_cap_v2"),
    (#"{"trained_betas": [0.1, 0.2]}"#, "trained_betas is a list of 2"),
    (#"{"trained_betas": [0.1, NaN], "num_train_timesteps": 2}"#, "trained_betas is not all above 0"),
    (#"{"prediction_type": "flow_prediction"}"#, "known are epsilon, sample, v_prediction"),
    (#"{"timestep_spacing": "log"}"#, "known are linspace, leading, trailing"),
    (#"{"steps_offset": -1}"#, "steps_offset is -1"),
    (#"{"use_karras_sigmas": true, "use_beta_sigmas": true}"#, "use_karras_sigmas and use_beta_sigmas; keep one"),
    (#"{"use_karras_sigmas": true, "sigma_min": 1000.0}"#, "sigma_min is 1000.0"),
    (#"{"use_karras_sigmas": 1}"#, "use_karras_sigmas is no true or false"),
    (#"{"final_sigmas_type": "one"}"#, "known are zero, sigma_min"),
    (#"{"beta_start": 0.9, "beta_end": 0.99}"#, "no signal is left"),
    ("[]", "it is no JSON object"),
    ("{", "it is no JSON"),
    ("", "it is no JSON"),
  ])
  func refuses(_ json: String, _ sentence: String) {
    let error = #expect(throws: SchedulerError.self) { try EulerDiscreteScheduler(try configuration(json), steps: 10) }
    #expect(error.map { "\($0)".contains(sentence) } ?? false, "\(error.map { "\($0)" } ?? "nothing")")
  }

  @Test func refusesStepsThatItCannotMake() throws {
    for kind in SchedulerKind.allCases {
      for steps in [0, -1, 1001, Int.max, Int.min] {
        #expect(throws: SchedulerError.self, "\(kind) \(steps)") { try kind.make(configuration: SchedulerConfiguration(), steps: steps) }
      }
    }
    let warmUp = #expect(throws: SchedulerError.self) { try PNDMScheduler(steps: 3) }
    #expect(warmUp?.description == "The scheduler pndm cannot make 3 steps; ask for 4 or more, or set skip_prk_steps in its configuration.")
    #expect(throws: SchedulerError.self) { try LCMScheduler(steps: 30, strength: 0.5) }
    #expect(throws: SchedulerError.self) { try DPMSolverMultistepScheduler(steps: 1000) }
    #expect(throws: SchedulerError.self) { try DDIMScheduler(try configuration(#"{"steps_offset": 1}"#), steps: 1000) }
    for eta in [-0.1, 1.1, .nan, .infinity] {
      var strange = SchedulerConfiguration()
      strange.sampling.eta = eta
      for kind in [SchedulerKind.ddim, .tcd, .eulerAncestral, .kdpm2Ancestral, .dpmSolverSDE, .dpmSolver3MSDE, .saSolver] {
        let error = #expect(throws: SchedulerError.self) { try kind.make(configuration: strange, steps: 10) }
        #expect(error?.description == "eta is \(eta); it must be a number from 0.0 to 1.0.")
      }
    }
    let noSignal = try configuration(#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#)
    #expect(throws: SchedulerError.self) { try DDIMScheduler(noSignal, steps: 10) }
  }

  /// The first prediction of each of three steps.
  private func firstPredictions(_ scheduler: any Scheduler) -> [Int] {
    (0..<3).map { min($0 * scheduler.order, scheduler.timesteps.count - 1) }
  }

  /// Steps can be given one by one, by σ or by timestep. They fall, and there are as many as steps.
  @Test func stepsAreGivenOneByOne() throws {
    func configuration(sigmas: [Double]?, timesteps: [Double]?) -> SchedulerConfiguration {
      var result = SchedulerConfiguration()
      (result.sampling.sigmas, result.sampling.timesteps) = (sigmas, timesteps)
      return result
    }
    let (sigmas, timesteps): ([Double], [Double]) = ([10, 3, 0.5], [900, 500, 20])
    for kind in SchedulerKind.allCases {
      let bySigma: [SchedulerKind] = [.edmEuler, .edmDPMSolverMultistep, .cmStochasticIterative],
        byTimestep: [SchedulerKind] = [.lcm, .tcd]
      let neither: [SchedulerKind] = [.restart, .ddpm, .ddim, .pndm, .ipndm, .ddimInverse, .dpmSolverMultistepInverse]
      if neither.contains(kind) || byTimestep.contains(kind) {
        #expect(throws: SchedulerError.missingSetting("sigmas", scheduler: kind)) {
          try kind.make(configuration: configuration(sigmas: sigmas, timesteps: nil), steps: 3)
        }
      } else {
        let made = try kind.make(configuration: configuration(sigmas: sigmas, timesteps: nil), steps: 3)
        let first = firstPredictions(made).map { made.sigmas[$0] }
        #expect(compare(first, [10, 3, 0.5]).error < 1e-5, "\(kind): \(first)")
      }
      if neither.contains(kind) || bySigma.contains(kind) {
        #expect(throws: SchedulerError.missingSetting("timesteps", scheduler: kind)) {
          try kind.make(configuration: configuration(sigmas: nil, timesteps: timesteps), steps: 3)
        }
      } else {
        let made = try kind.make(configuration: configuration(sigmas: nil, timesteps: timesteps), steps: 3)
        #expect(firstPredictions(made).map { made.timesteps[$0] } == [900, 500, 20], "\(kind)")
        #expect(throws: SchedulerError.self) { try kind.make(configuration: configuration(sigmas: nil, timesteps: timesteps), steps: 4) }
      }
    }
    for strange: [Double] in [[3, 10, 0.5], [10, 10, 0.5], [10, 3, 0], [10, 3, .nan], [.infinity, 3, 1], [10, 3]] {
      #expect(throws: SchedulerError.self, "\(strange)") {
        try SchedulerKind.euler.make(configuration: configuration(sigmas: strange, timesteps: nil), steps: 3)
      }
    }
    for strange: [Double] in [[20, 500, 900], [1000, 500, 20], [900, 500, -1], [900, .nan, 20], []] {
      #expect(throws: SchedulerError.self, "\(strange)") {
        try SchedulerKind.dpmSolverMultistep.make(configuration: configuration(sigmas: nil, timesteps: strange), steps: 3)
      }
    }
    #expect(throws: SchedulerError.conflictingSettings("sigmas", "timesteps")) {
      try SchedulerKind.euler.make(configuration: configuration(sigmas: sigmas, timesteps: timesteps), steps: 3)
    }
  }

  /// A setting changes what a step gives, or it is refused.
  @Test(arguments: SchedulerKind.allCases)
  func settingsAreUsedOrRefused(_ kind: SchedulerKind) throws {
    func end(_ settings: SamplingSettings) throws -> [Float] {
      var configuration = SchedulerConfiguration()
      configuration.sampling = settings
      var scheduler = try kind.make(configuration: configuration, steps: 6)
      var noise: any NoiseSource = TorchGenerator(seed: 2)
      var sample = Pseudo.noise * scheduler.initialNoiseScale
      for step in scheduler.timesteps.indices {
        let prediction = Pseudo.predict(scheduler.scaleInput(sample, at: step), timestep: scheduler.timesteps[step])
        sample = try scheduler.advance(sample, prediction: prediction, at: step, noise: &noise).sample
      }
      return sample.elements
    }
    let usual = try end(SamplingSettings())
    var used: [String] = []
    var (eta, churn, noiseScale) = (SamplingSettings(), SamplingSettings(), SamplingSettings())
    (eta.eta, churn.churn, noiseScale.noiseScale) = (0.5, 20, 1.1)
    for (name, settings) in [("eta", eta), ("s_churn", churn), ("s_noise", noiseScale)] {
      do {
        let changed = try end(settings)
        used.append(name)
        #expect(changed != usual, "\(name)")
      } catch SchedulerError.idleSetting(let idle, let other) {
        // Without churn Euler's method draws nothing, and so does RES without η.
        used.append(name)
        #expect(idle == "s_noise" && other == (kind == .resMultistep ? "eta" : "s_churn"))
      } catch SchedulerError.missingSetting(let missing, let scheduler) {
        #expect(missing == name && scheduler == kind)
      }
    }
    let ancestral: [SchedulerKind] = [
      .eulerAncestral, .kdpm2Ancestral, .dpmSolver2SAncestral, .dpmSolverSDE, .dpmSolver3MSDE, .resMultistep,
    ]
    let expected: [String] =
      switch kind {
      case .ddim, .tcd, .saSolver: ["eta"]
      case .euler, .edmEuler: ["s_churn", "s_noise"]
      case .erSDE, .cmStochasticIterative: ["s_noise"]
      default: ancestral.contains(kind) ? ["eta", "s_noise"] : []
      }
    #expect(used == expected)
  }

  @Test func refusesStepsBeyondTheTableAndOtherShapes() throws {
    var noise: any NoiseSource = Pseudo.Source()
    let sample = Tensor(repeating: 1, shape: [1, 2, 2, 4])
    for kind in SchedulerKind.allCases {
      var scheduler = try kind.make(configuration: SchedulerConfiguration(), steps: 4)
      for step in [-1, scheduler.timesteps.count] {
        #expect(throws: SchedulerError.stepOutOfRange(step, count: scheduler.timesteps.count)) {
          try scheduler.advance(sample, prediction: sample, at: step, noise: &noise)
        }
      }
      let other = sample.reshaped([1, 4, 4])
      #expect(throws: SchedulerError.shapeMismatch(sample: sample.shape, prediction: other.shape)) {
        try scheduler.advance(sample, prediction: other, at: 0, noise: &noise)
      }
    }
  }

  /// Whatever a file holds, a scheduler is refused with a sentence or makes its steps.
  @Test func survivesHostileFiles() throws {
    let keys = [
      "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "prediction_type",
      "timestep_spacing", "steps_offset", "timestep_type", "interpolation_type", "use_karras_sigmas", "use_exponential_sigmas",
      "use_beta_sigmas", "use_lu_lambdas", "sigma_min", "sigma_max", "final_sigmas_type", "set_alpha_to_one", "original_inference_steps",
      "timestep_scaling", "clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value",
      "variance_type", "skip_prk_steps", "algorithm_type", "solver_type", "solver_order", "lower_order_final", "euler_at_final",
      "lambda_min_clipped", "predict_x0", "disable_corrector", "predictor_order", "corrector_order", "noise_sampler_seed", "sigma_data",
      "sigma_schedule", "rho", "s_noise", "clip_denoised",
    ]
    let values = [
      "0", "1", "2", "3", "5", "999", "1000", "-1", "1e12", "9223372036854775807", "-9223372036854775808", "0.5", "1e-300", "1e300", "NaN",
      "Infinity", "-Infinity", "true", "false", "null", "\"\"", "\"zero\"", "\"sigma_min\"", "\"squaredcos_cap_v2\"", "\"trailing\"",
      "\"sde-dpmsolver++\"", "\"log_linear\"", "[]", "[0.5]", "[-1, 9223372036854775807]", "{}",
    ]
    let shapes = ["", #", "use_karras_sigmas": true, "thresholding": true"#, #", "num_train_timesteps": 1, "prediction_type": "sample""#]
    var (made, refused) = (0, 0)
    for key in keys {
      for json in values.flatMap({ value in shapes.map { "{\"\(key)\": \(value)\($0)}" } }) {
        for (kind, steps) in SchedulerKind.allCases.flatMap({ [($0, 1), ($0, 4)] }) {
          do {
            try run(kind.make(configuration: configuration(json), steps: steps))
            made += 1
          } catch let error as SchedulerError {
            refused += 1
            #expect(error.description.hasSuffix(".") && error.description.count < 300, "\(error)")
          }
        }
      }
    }
    #expect(made > 1000 && refused > 1000, "\(made) made, \(refused) refused")
  }

  private func run(_ start: any Scheduler) throws {
    var scheduler = start
    var noise: any NoiseSource = Pseudo.Source()
    var sample = scheduler.addNoise(Pseudo.noise, to: Pseudo.data, at: 0)
    for step in scheduler.timesteps.indices {
      let prediction = Pseudo.predict(scheduler.scaleInput(sample, at: step), timestep: scheduler.timesteps[step])
      sample = try scheduler.advance(sample, prediction: prediction, at: step, noise: &noise).sample
    }
    #expect(scheduler.sigmas.count > scheduler.timesteps.count && scheduler.initialNoiseScale.isFinite)
  }
}
