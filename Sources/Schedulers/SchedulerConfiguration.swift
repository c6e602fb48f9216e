import Foundation

/// What `scheduler_config.json` says, under diffusers' keys. A value that is absent (or null) is nil, and each scheduler puts its own
/// default in its place, as diffusers' classes do; so one configuration can be handed from scheduler to scheduler, which is what
/// diffusers' `from_config` does. Keys that a scheduler does not know are ignored.
public struct SchedulerConfiguration: Sendable, Equatable {
  /// `_class_name`: the diffusers class it was written for.
  public var className: String?

  // The forward process.
  /// `num_train_timesteps`.
  public var trainTimesteps: Int?
  /// `beta_start`, 0…1.
  public var betaStart: Double?
  /// `beta_end`, 0…1.
  public var betaEnd: Double?
  /// `beta_schedule`, see `BetaSchedule`.
  public var betaSchedule: String?
  /// `trained_betas`: all betas, in place of a formula.
  public var trainedBetas: [Double]?
  /// `rescale_betas_zero_snr`: no signal is left at the last timestep.
  public var rescaleBetasZeroSNR: Bool?
  /// `prediction_type`, see `PredictionType`.
  public var predictionType: String?

  // Which timesteps are visited.
  /// `timestep_spacing`, see `TimestepSpacing`.
  public var timestepSpacing: String?
  /// `steps_offset`, added to timesteps with leading spacing.
  public var stepsOffset: Int?
  /// `timestep_type`: `discrete` or `continuous` (Euler).
  public var timestepType: String?
  /// `interpolation_type`: `linear` or `log_linear` (Euler).
  public var interpolationType: String?
  /// `use_karras_sigmas`.
  public var useKarrasSigmas: Bool?
  /// `use_exponential_sigmas`.
  public var useExponentialSigmas: Bool?
  /// `use_beta_sigmas`.
  public var useBetaSigmas: Bool?
  /// `use_lu_lambdas` (DPM-Solver).
  public var useLuLambdas: Bool?
  /// Whether noise levels are those of flow matching, which no scheduler here reads (`use_flow_sigmas`).
  public var useFlowSigmas: Bool?
  /// `sigma_min`, in place of the table's smallest for spacings of σ.
  public var sigmaMin: Double?
  /// `sigma_max`, in place of the table's largest.
  public var sigmaMax: Double?
  /// `final_sigmas_type`: `zero` or `sigma_min`.
  public var finalSigmasType: String?
  /// `set_alpha_to_one`: no noise is left after the last step.
  public var setAlphaToOne: Bool?
  /// `original_inference_steps`: steps of the teacher that a model was distilled from (LCM, TCD).
  public var originalInferenceSteps: Int?
  /// `timestep_scaling` (LCM).
  public var timestepScaling: Double?

  // What happens to the predicted clean sample.
  /// `clip_sample`.
  public var clipSample: Bool?
  /// `clip_sample_range`.
  public var clipSampleRange: Double?
  /// `thresholding`: dynamic thresholding.
  public var thresholding: Bool?
  /// `dynamic_thresholding_ratio`: a quantile, 0…1.
  public var dynamicThresholdingRatio: Double?
  /// `sample_max_value`.
  public var sampleMaxValue: Double?

  // Particular to an algorithm.
  /// `variance_type` (DDPM).
  public var varianceType: String?
  /// `skip_prk_steps`: no Runge–Kutta warm-up (PNDM).
  public var skipPRKSteps: Bool?
  /// `algorithm_type` (DPM-Solver, DEIS, SA-Solver).
  public var algorithmType: String?
  /// `solver_type` (DPM-Solver, DEIS, UniPC).
  public var solverType: String?
  /// `solver_order` (DPM-Solver, DEIS, UniPC).
  public var solverOrder: Int?
  /// `lower_order_final` (DPM-Solver, DEIS, UniPC, SA-Solver).
  public var lowerOrderFinal: Bool?
  /// `euler_at_final` (DPM-Solver).
  public var eulerAtFinal: Bool?
  /// `lambda_min_clipped` (DPM-Solver, SA-Solver).
  public var lambdaMinClipped: Double?
  /// `predict_x0` (UniPC).
  public var predictX0: Bool?
  /// `solver_p`: a solver in the place of UniPC's predictor. What it is is not read.
  public var solverP: UnreadValue?
  /// `disable_corrector`: the steps after which UniPC does not correct.
  public var disableCorrector: [Int]?
  /// `predictor_order` (SA-Solver).
  public var predictorOrder: Int?
  /// `corrector_order` (SA-Solver).
  public var correctorOrder: Int?
  /// `noise_sampler_seed`: the seed of the Brownian path (DPM-Solver SDE).
  public var noiseSamplerSeed: Int?
  /// `sigma_data`: the standard deviation of the data (EDM, consistency models).
  public var sigmaData: Double?
  /// `sigma_schedule`: `karras` or `exponential` (EDM).
  public var sigmaSchedule: String?
  /// `rho`: the exponent of Karras' spacing (EDM, consistency models).
  public var rho: Double?
  /// `s_noise`: what fresh noise is multiplied by (consistency models).
  public var sNoise: Double?
  /// `clip_denoised` (consistency models).
  public var clipDenoised: Bool?

  // What no file says, but who asks for pictures.
  /// How σ falls, whatever the file's keys say of it.
  public var spacing: SigmaSpacing?
  /// What a run is asked for beside the steps.
  public var sampling = SamplingSettings()

  /// Every key at its scheduler's default.
  public init() {}

  /// What the bytes of a `scheduler_config.json` say; `Infinity` and `NaN`, which Python writes, are read too.
  /// - Throws: `SchedulerError.unreadableConfiguration`.
  public init(json: Data) throws(SchedulerError) {
    let decoder = JSONDecoder()
    decoder.allowsJSON5 = true
    do {
      self = try decoder.decode(SchedulerConfiguration.self, from: json)
    } catch DecodingError.typeMismatch(let type, let context) {
      let key = context.codingPath.map(\.stringValue).joined(separator: ".")
      throw .unreadableConfiguration(key.isEmpty ? "it is no JSON object" : "\(key) is no \(Self.name(of: type))")
    } catch DecodingError.dataCorrupted(let context) where !context.codingPath.isEmpty {
      throw .unreadableConfiguration("\(context.codingPath.map(\.stringValue).joined(separator: ".")) has a value that does not fit")
    } catch {
      throw .unreadableConfiguration("it is no JSON with numbers of ordinary size")
    }
  }

  private static func name(of type: Any.Type) -> String {
    switch type {
    case is String.Type: "text"
    case is Bool.Type: "true or false"
    case is Int.Type, is Double.Type: "number"
    default: "list of numbers"
    }
  }
}

/// A value of a file that is there, whatever it is.
public struct UnreadValue: Sendable, Equatable, Decodable {
  public init(from decoder: any Decoder) {}
}

extension SchedulerConfiguration: Decodable {
  enum CodingKeys: String, CodingKey {
    case className = "_class_name"
    case trainTimesteps = "num_train_timesteps"
    case betaStart = "beta_start"
    case betaEnd = "beta_end"
    case betaSchedule = "beta_schedule"
    case trainedBetas = "trained_betas"
    case rescaleBetasZeroSNR = "rescale_betas_zero_snr"
    case predictionType = "prediction_type"
    case timestepSpacing = "timestep_spacing"
    case stepsOffset = "steps_offset"
    case timestepType = "timestep_type"
    case interpolationType = "interpolation_type"
    case useKarrasSigmas = "use_karras_sigmas"
    case useExponentialSigmas = "use_exponential_sigmas"
    case useBetaSigmas = "use_beta_sigmas"
    case useLuLambdas = "use_lu_lambdas"
    case useFlowSigmas = "use_flow_sigmas"
    case sigmaMin = "sigma_min"
    case sigmaMax = "sigma_max"
    case finalSigmasType = "final_sigmas_type"
    case setAlphaToOne = "set_alpha_to_one"
    case originalInferenceSteps = "original_inference_steps"
    case timestepScaling = "timestep_scaling"
    case clipSample = "clip_sample"
    case clipSampleRange = "clip_sample_range"
    case thresholding
    case dynamicThresholdingRatio = "dynamic_thresholding_ratio"
    case sampleMaxValue = "sample_max_value"
    case varianceType = "variance_type"
    case skipPRKSteps = "skip_prk_steps"
    case algorithmType = "algorithm_type"
    case solverType = "solver_type"
    case solverOrder = "solver_order"
    case lowerOrderFinal = "lower_order_final"
    case eulerAtFinal = "euler_at_final"
    case lambdaMinClipped = "lambda_min_clipped"
    case predictX0 = "predict_x0"
    case solverP = "solver_p"
    case disableCorrector = "disable_corrector"
    case predictorOrder = "predictor_order"
    case correctorOrder = "corrector_order"
    case noiseSamplerSeed = "noise_sampler_seed"
    case sigmaData = "sigma_data"
    case sigmaSchedule = "sigma_schedule"
    case rho
    case sNoise = "s_noise"
    case clipDenoised = "clip_denoised"
  }
}

/// Values as a scheduler uses them: its default where there is none, an error where nothing can be computed with them.
extension SchedulerConfiguration {
  /// One of a few words.
  func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ key: CodingKeys, _ value: String?, default standard: Choice, among known: [Choice] = Array(Choice.allCases)
  ) throws(SchedulerError) -> Choice where Choice: Equatable {
    guard let value else { return standard }
    guard let choice = Choice(rawValue: value), known.contains(choice) else {
      throw .unknownValue(key: key.rawValue, found: value, known: known.map(\.rawValue))
    }
    return choice
  }

  /// `algorithm_type`. What a file of another class says is an algorithm of that solver. Where this one does not have it, it takes its own default;
  /// diffusers refuses such an exchange.
  func algorithm<Algorithm: RawRepresentable<String> & CaseIterable>(
    default standard: Algorithm, among known: [Algorithm] = Array(Algorithm.allCases), of scheduler: SchedulerKind
  ) throws(SchedulerError) -> Algorithm where Algorithm: Equatable {
    let isOthers = className != nil && className != scheduler.className
    let all = DPMSolverAlgorithm.allCases.map(\.rawValue) + SASolverScheduler.Algorithm.allCases.map(\.rawValue)
    if isOthers, let algorithmType, all.contains(algorithmType), !known.map(\.rawValue).contains(algorithmType) { return standard }
    return try choice(.algorithmType, algorithmType, default: standard, among: known)
  }

  /// A finite number within a range, as float32.
  func number(
    _ key: CodingKeys, _ value: Double?, default standard: Double, in range: ClosedRange<Double>
  ) throws(SchedulerError) -> Float {
    let value = value ?? standard
    guard range.contains(value) else {
      throw .unusableValue(key: key.rawValue, found: "\(value)", needed: "a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return Float(value)
  }

  /// A whole number within a range.
  func count(_ key: CodingKeys, _ value: Int?, default standard: Int, in range: ClosedRange<Int>) throws(SchedulerError) -> Int {
    let value = value ?? standard
    guard range.contains(value) else {
      throw .unusableValue(
        key: key.rawValue, found: "\(value)", needed: "a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return value
  }
}

extension SchedulerConfiguration {
  /// ᾱ of each training timestep, with the defaults of diffusers' `DDPMScheduler`.
  /// - Throws: `SchedulerError`.
  public func alphasCumprod() throws(SchedulerError) -> [Float] { try NoiseTable(self, defaults: NoiseTable.Defaults()).alphasCumprod }
}
