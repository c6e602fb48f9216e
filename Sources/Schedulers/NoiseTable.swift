import Foundation
import LatentDiffusionComponents

/// How β, the variance of the noise added at a training timestep, grows (`beta_schedule`).
public enum BetaSchedule: String, CaseIterable, Sendable {
  /// β in equal steps.
  case linear
  /// √β in equal steps: the latent diffusion models' schedule.
  case scaledLinear = "scaled_linear"
  /// ᾱ follows a squared cosine (Nichol and Dhariwal, arXiv 2102.09672).
  case squaredCosine = "squaredcos_cap_v2"
  /// β follows a sigmoid (GeoDiff).
  case sigmoid
  /// ᾱ after a Laplace distribution of log SNR (arXiv 2407.03297).
  case laplace
  /// ᾱ falls exponentially.
  case exponential = "exp"

  /// The schedules that all of diffusers' classes know.
  static let common: [BetaSchedule] = [.linear, .scaledLinear, .squaredCosine]
}

extension SchedulerConfiguration {
  /// The noise of each training timestep, for pictures that a predictor is shown with noise on them. Source: diffusers' `DDPMScheduler.add_noise`.
  /// - Throws: `SchedulerError`.
  public func trainingLevels() throws(SchedulerError) -> [NoiseLevel] {
    try NoiseTable(self, defaults: NoiseTable.Defaults()).alphasCumprod.map { NoiseLevel(alphaCumprod: $0) }
  }
}

/// The forward process: how much signal is left at each training timestep.
///
/// Source: the constructors of diffusers' schedulers; numbers are rounded to float32 where PyTorch's tensors round them.
struct NoiseTable: Sendable {
  /// ᾱ_t = Π (1 − β_s), s ≤ t.
  let alphasCumprod: [Float]
  /// `num_train_timesteps`: T.
  let trainTimesteps: Int

  /// The longest table that a configuration may ask for, since it is allocated.
  static let longest = 1_000_000

  /// A scheduler's defaults, which differ among diffusers' classes.
  struct Defaults: Sendable {
    var betaStart = 0.0001
    var betaEnd = 0.02
    var schedule = BetaSchedule.linear
    var schedules = BetaSchedule.common
    /// Whether the class has `rescale_betas_zero_snr`.
    var rescales = true
    /// Whether ᾱ is kept above zero after rescaling, as samplers over σ need it.
    var keepsSignal = false
  }

  init(_ configuration: SchedulerConfiguration, defaults: Defaults) throws(SchedulerError) {
    trainTimesteps = try configuration.count(.trainTimesteps, configuration.trainTimesteps, default: 1000, in: 1...Self.longest)
    var betas = try Self.betas(configuration, count: trainTimesteps, defaults: defaults)
    let rescaled = defaults.rescales && configuration.rescaleBetasZeroSNR ?? false
    if rescaled { betas = Self.rescaledToZeroSNR(betas) }
    var alphas = Self.cumulativeProducts(betas.map { 1 - $0 })
    if rescaled, defaults.keepsSignal { alphas[alphas.count - 1] = 0x1p-24 }
    guard alphas.allSatisfy(\.isFinite), alphas.dropLast().allSatisfy({ $0 > 0 }), rescaled || alphas.last != 0 else {
      throw .unusableValue(key: "beta_end", found: "so large that no signal is left", needed: "smaller")
    }
    alphasCumprod = alphas
  }

  /// Throws where there are more steps than training timesteps, or none.
  func check(steps: Int, for scheduler: SchedulerKind) throws(SchedulerError) { try scheduler.check(steps: steps, of: trainTimesteps) }

  /// σ_t = √((1 − ᾱ_t)/ᾱ_t) for each training timestep.
  var sigmas: [Float] { alphasCumprod.map(Self.sigma) }

  static func sigma(_ alphaCumprod: Float) -> Float { ((1 - alphaCumprod) / alphaCumprod).squareRoot() }

  private static func betas(
    _ configuration: SchedulerConfiguration, count: Int, defaults: Defaults
  ) throws(SchedulerError) -> [Float] {
    if let trained = configuration.trainedBetas {
      guard trained.count == count else {
        throw .unusableValue(key: "trained_betas", found: "a list of \(trained.count)", needed: "as long as num_train_timesteps, \(count)")
      }
      guard trained.allSatisfy({ $0 > 0 && $0 < 1 }) else {
        throw .unusableValue(key: "trained_betas", found: "not all above 0 and below 1", needed: "all above 0 and below 1")
      }
      return trained.map { Float($0) }
    }
    let range = 1e-12...0.999_999
    let schedule = try configuration.choice(
      .betaSchedule, configuration.betaSchedule, default: defaults.schedule, among: defaults.schedules)
    _ = try configuration.number(.betaStart, configuration.betaStart, default: defaults.betaStart, in: range)
    _ = try configuration.number(.betaEnd, configuration.betaEnd, default: defaults.betaEnd, in: range)
    let start = configuration.betaStart ?? defaults.betaStart
    let end = configuration.betaEnd ?? defaults.betaEnd
    switch schedule {
    case .linear:
      return equalSteps(from: Float(start), to: Float(end), count: count)
    case .scaledLinear:
      return equalSteps(from: Float(start.squareRoot()), to: Float(end.squareRoot()), count: count).map { $0 * $0 }
    case .sigmoid:
      return equalSteps(from: -6, to: 6, count: count).map { 1 / (1 + exp(-$0)) * Float(end - start) + Float(start) }
    case .squaredCosine:
      return betas(count: count) { pow(cos(($0 + 0.008) / 1.008 * .pi / 2), 2) }
    case .exponential:
      return betas(count: count) { exp($0 * -12) }
    case .laplace:
      return betas(count: count) { t in
        let logSNR = -0.5 * (t > 0.5 ? -1 : 1) * log(1 - 2 * abs(0.5 - t) + 1e-6)
        return (exp(logSNR) / (1 + exp(logSNR))).squareRoot()
      }
    }
  }

  /// The betas of a given ᾱ(t), t from 0 to 1: β_i = 1 − ᾱ((i+1)/T)/ᾱ(i/T), at most 0.999.
  private static func betas(count: Int, alphaBar: (Double) -> Double) -> [Float] {
    (0..<count).map { i in
      Float(min(1 - alphaBar(Double(i + 1) / Double(count)) / alphaBar(Double(i) / Double(count)), 0.999))
    }
  }

  /// torch.linspace in float32, which counts from the nearer end and rounds once.
  static func equalSteps(from start: Float, to end: Float, count: Int) -> [Float] {
    guard count > 1 else { return Array(repeating: start, count: count) }
    let step = (end - start) / Float(count - 1)
    return (0..<count).map { index in
      index < count / 2 ? start.addingProduct(step, Float(index)) : end.addingProduct(-step, Float(count - 1 - index))
    }
  }

  /// torch.cumprod on float32, which accumulates in double.
  private static func cumulativeProducts(_ factors: [Float]) -> [Float] {
    var product = 1.0
    return factors.map { factor in
      product *= Double(factor)
      return Float(product)
    }
  }

  /// Betas whose last ᾱ is 0 (Lin et al., "Common diffusion noise schedules and sample steps are flawed", arXiv 2305.08891,
  /// algorithm 1): √ᾱ is shifted to end at 0 and scaled to keep its first value.
  private static func rescaledToZeroSNR(_ betas: [Float]) -> [Float] {
    let roots = cumulativeProducts(betas.map { 1 - $0 }).map { $0.squareRoot() }
    let (first, last) = (roots[0], roots[roots.count - 1])
    let bars = roots.map { root in
      let scaled = (root - last) * (first / (first - last))
      return scaled * scaled
    }
    return bars.indices.map { 1 - ($0 == 0 ? bars[0] : bars[$0] / bars[$0 - 1]) }
  }
}

extension NoiseTable {
  /// The table of a sampler that diffusers does not have: with the defaults of Euler's, whose samples it shares.
  init(kDiffusion configuration: SchedulerConfiguration, steps: Int, scheduler: SchedulerKind) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.keepsSignal = true
    try self.init(configuration, defaults: defaults)
    try check(steps: steps, for: scheduler)
  }

  /// The table of diffusers' samplers with two predictions a step.
  init(
    twoPredictions configuration: SchedulerConfiguration, steps: Int, scheduler: SchedulerKind,
    schedules: [BetaSchedule] = BetaSchedule.common
  ) throws(SchedulerError) {
    try self.init(
      configuration, defaults: Defaults(betaStart: 0.00085, betaEnd: 0.012, schedules: schedules, rescales: false))
    try check(steps: steps, for: scheduler)
  }
}

extension SchedulerKind {
  /// Throws where there are more steps than training timesteps, or none.
  fileprivate func check(steps: Int, of trained: Int) throws(SchedulerError) {
    guard 1...trained ~= steps else {
      throw .unusableSteps(steps, scheduler: self, needed: "1 to \(trained), the timesteps it was trained on")
    }
  }
}

extension SchedulerConfiguration {
  /// `num_train_timesteps` of a scheduler that has no table of training.
  func trainTimesteps(default standard: Int, atLeast least: Int = 1, steps: Int, scheduler: SchedulerKind) throws(SchedulerError) -> Int {
    let trained = try count(.trainTimesteps, trainTimesteps, default: standard, in: least...NoiseTable.longest)
    try scheduler.check(steps: steps, of: trained)
    return trained
  }
}
