import Foundation

/// How σ falls from its largest to its smallest value, where it does not follow the training table.
///
/// Any of them can be asked for beside any solver that has σ. diffusers' own are keys of its configurations.
///
/// Source: `_convert_to_karras` and its siblings in diffusers' schedulers; k-diffusion's `get_sigmas_polyexponential`; the others as ComfyUI and the webui
/// define them under these names.
public enum SigmaSpacing: String, CaseIterable, Sendable, Codable {
  /// σ^(1/7) in equal steps (Karras et al., arXiv 2206.00364, equation 5).
  case karras
  /// log σ in equal steps.
  case exponential
  /// Quantiles of the distribution Beta(0.6, 0.6) ("Beta sampling is all you need", arXiv 2407.12173).
  case beta
  /// log σ in equal steps, σ_min and σ_max always the table's (Lu et al.; diffusers' `use_lu_lambdas`).
  case lu
  /// log σ by a power of equal steps (k-diffusion); with the power 1, `rho`'s default here, the same as exponential.
  case polyexponential
  /// arctan σ in equal steps ("Align your steps", arXiv 2404.14507, section 3.1).
  case klOptimal = "kl-optimal"
  /// 1 − σ/σ_max first in small equal steps, then quadratically ("Movie Gen", arXiv 2410.13720, section 3.4).
  case linearQuadratic = "linear-quadratic"
  /// Timesteps in equal steps that stop one short of the first.
  case sgmUniform = "sgm-uniform"
  /// Entries of the training table in equal steps from its end, rounded down.
  case simple
  /// Entries of the training table in equal whole steps from its second. There may be more of them than steps.
  case ddimUniform = "ddim-uniform"
  /// Optimised for Stable Diffusion 1 (arXiv 2404.14507): a table of 10 steps, for other counts interpolated in log σ.
  case alignYourSteps = "align-your-steps"
  /// Optimised for Stable Diffusion XL.
  case alignYourStepsXL = "align-your-steps-xl"
  /// Optimised for Stable Video Diffusion.
  case alignYourStepsVideo = "align-your-steps-svd"
  /// Optimised for Stable Diffusion 1 with 2 to 20 steps (arXiv 2405.11326), for more interpolated in log σ.
  case gits

  /// Whether it needs a training table.
  var readsTable: Bool { [.sgmUniform, .simple, .ddimUniform].contains(self) }
  /// The keys of diffusers' configurations stand for these alone.
  static let keyed: [SigmaSpacing] = [.karras, .exponential, .beta, .lu]

  /// The spacing that the configuration turns on; nil where it turns on none.
  /// - Parameter lu: whether the scheduler has `use_lu_lambdas`.
  init?(_ configuration: SchedulerConfiguration, lu: Bool = false) throws(SchedulerError) {
    if let asked = configuration.spacing {
      self = asked
      return
    }
    let exclusive: [(SchedulerConfiguration.CodingKeys, Bool?, SigmaSpacing)] = [
      (.useKarrasSigmas, configuration.useKarrasSigmas, .karras),
      (.useExponentialSigmas, configuration.useExponentialSigmas, .exponential),
      (.useBetaSigmas, configuration.useBetaSigmas, .beta),
    ]
    let on = exclusive.filter { $0.1 ?? false }
    guard on.count < 2 else { throw .conflictingKeys(on.map(\.0.rawValue)) }
    // diffusers asks for Karras' sigmas first, then for Lu's, then for the others.
    let wantsLu = lu && configuration.useLuLambdas ?? false
    guard let spacing = wantsLu && configuration.useKarrasSigmas != true ? .lu : on.first?.2 else { return nil }
    self = spacing
  }

  /// Sigmas between two ends, in this order.
  /// - Parameters:
  ///   - largest: the first σ.
  ///   - smallest: the last σ. Some spacings stop before it.
  ///   - rho: the power of Karras' spacing, 7, and of the polyexponential one, 1.
  ///   - table: the training table. Without it those that read it are Karras'.
  func sigmas(from largest: Double, to smallest: Double, count: Int, rho: Double? = nil, table: SigmaTable? = nil) -> [Double] {
    switch self {
    case .exponential, .lu:
      return equalSteps(from: log(largest), to: log(smallest), count: count).map { exp($0) }
    case .polyexponential:
      return equalSteps(from: 1, to: 0, count: count).map { exp(pow($0, rho ?? 1) * (log(largest) - log(smallest)) + log(smallest)) }
    case .beta:
      return equalSteps(from: 0, to: 1, count: count).map { smallest + Self.betaQuantile(1 - $0) * (largest - smallest) }
    case .klOptimal:
      return equalSteps(from: 0, to: 1, count: count).map { tan($0 * atan(smallest) + (1 - $0) * atan(largest)) }
    case .linearQuadratic:
      return Self.linearQuadratic(count).map { (1 - $0) * largest }
    case .alignYourSteps, .alignYourStepsXL, .alignYourStepsVideo:
      return Self.interpolated(optimised, count: count + 1).dropLast()
    case .gits:
      return Self.interpolated(GITSLevels.sigmas(steps: count), count: count + 1).dropLast()
    case .sgmUniform, .simple, .ddimUniform:
      if let table { return table.sigmas(self, from: largest, to: smallest, count: count) }
      fallthrough
    case .karras:
      let power = 1 / (rho ?? 7)
      return equalSteps(from: 0, to: 1, count: count).map { ramp in
        pow(pow(largest, power) + ramp * (pow(smallest, power) - pow(largest, power)), 1 / power)
      }
    }
  }

  /// 1 − σ/σ_max at the start of each step: half of them up to 0.025 in equal steps, the others on a parabola that goes on with that slope.
  private static func linearQuadratic(_ steps: Int) -> [Double] {
    guard steps > 1 else { return Array(repeating: 0, count: steps) }
    let threshold = 0.025
    let linear = Double(steps / 2), quadratic = Double(steps) - linear
    let rest = linear - threshold * Double(steps)
    let square = rest / (linear * quadratic * quadratic)
    let slope = threshold / linear - 2 * rest / (quadratic * quadratic)
    return (0..<steps).map(Double.init).map { step in
      step < linear ? step * threshold / linear : square * step * step + slope * step + square * linear * linear
    }
  }

  /// σ of 10 optimised steps, then of the end. Source: the tables that the paper's authors published, which are diffusers' `AysSchedules`.
  private var optimised: [Double] {
    switch self {
    case .alignYourStepsXL: [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]
    case .alignYourStepsVideo: [700, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002]
    default: [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
    }
  }

  /// As many numbers along the same curve, linear in their logarithms.
  private static func interpolated(_ table: [Double], count: Int) -> [Double] {
    guard count != table.count else { return table }
    return equalSteps(from: 0, to: Double(table.count - 1), count: count).map { place in
      let below = min(Int(place), table.count - 2)
      return exp(log(table[below]) + (log(table[below + 1]) - log(table[below])) * (place - Double(below)))
    }
  }

  /// Both parameters of the beta distribution.
  private static let betaParameter = 0.6

  /// The x at which the distribution Beta(a, a) has reached a probability, by bisection.
  private static func betaQuantile(_ probability: Double) -> Double {
    guard probability > 0 else { return 0 }
    guard probability <= 0.5 else { return 1 - betaQuantile(1 - probability) }
    var (low, high) = (0.0, 0.5)
    for _ in 0..<100 {
      let middle = (low + high) / 2
      if incompleteBeta(middle) < probability { low = middle } else { high = middle }
    }
    return (low + high) / 2
  }

  /// The regularised incomplete beta function I_x(a, a) for x ≤ ½, by its power series
  /// x^a / (a B(a, a)) · (1 + a Σ_{n≥1} (1 − a)(2 − a)…(n − a) / (n! (a + n)) xⁿ).
  private static func incompleteBeta(_ x: Double) -> Double {
    let a = betaParameter
    var (coefficient, sum, n) = (1.0, 1.0, 1.0)
    while coefficient > 1e-18, n < 200 {
      coefficient *= (n - a) / n * x
      sum += a * coefficient / (a + n)
      n += 1
    }
    let completeBeta = tgamma(a) * tgamma(a) / tgamma(2 * a)
    return pow(x, a) * sum / (a * completeBeta)
  }
}

/// The training table of σ, with interpolation in both directions.
struct SigmaTable: Sendable {
  /// σ at each training timestep, rising.
  let sigmas: [Float]
  private let logSigmas: [Float]

  init(_ table: NoiseTable) {
    sigmas = table.sigmas
    logSigmas = sigmas.map { log($0) }
  }

  /// numpy.interp at a timestep: constant beyond the ends.
  func sigma(at timestep: Double) -> Double {
    let last = sigmas.count - 1
    guard timestep > 0 else { return Double(sigmas[0]) }
    guard timestep < Double(last) else { return Double(sigmas[last]) }
    let below = Int(timestep)
    let (low, high) = (Double(sigmas[below]), Double(sigmas[below + 1]))
    return (high - low) * (timestep - Double(below)) + low
  }

  /// The same, linear in log σ.
  private func logInterpolated(at timestep: Double) -> Double {
    let below = min(max(Int(timestep), 0), max(sigmas.count - 2, 0)), weight = timestep - Double(below)
    let (low, high) = (Double(logSigmas[below]), Double(logSigmas[min(below + 1, sigmas.count - 1)]))
    return exp((1 - weight) * low + weight * high)
  }

  /// The timestep at which the table reaches σ, by linear interpolation of log σ (`_sigma_to_t`).
  func timestep(at sigma: Double) -> Double {
    guard sigmas.count > 1 else { return 0 }
    let logSigma = log(max(sigma, 1e-10))
    let below = min(max(count(atMost: logSigma) - 1, 0), sigmas.count - 2)
    let (low, high) = (logSigmas[below], logSigmas[below + 1])
    let weight = min(max((Double(low) - logSigma) / Double(low - high), 0), 1)
    return (1 - weight) * Double(below) + weight * Double(below + 1)
  }

  /// σ in equal steps of log σ, from the end of the table to its start (`interpolation_type` `log_linear`).
  func logLinear(count: Int) -> [Double] {
    NoiseTable.equalSteps(from: log(sigmas[sigmas.count - 1]), to: log(sigmas[0]), count: count).map { Double(exp($0)) }
  }

  /// Sigmas of a spacing that reads the table.
  fileprivate func sigmas(_ spacing: SigmaSpacing, from largest: Double, to smallest: Double, count: Int) -> [Double] {
    let last = sigmas.count - 1
    switch spacing {
    case .simple:
      let stride = Double(sigmas.count) / Double(max(count, 1))
      return (0..<count).map { Double(sigmas[max(last - Int(Double($0) * stride), 0)]) }
    case .ddimUniform:
      return Swift.stride(from: min(1, last), through: last, by: max(sigmas.count / max(count, 1), 1)).reversed().map { Double(sigmas[$0]) }
    default:
      return equalSteps(from: timestep(at: largest), to: timestep(at: smallest), count: count + 1).dropLast().map(logInterpolated)
    }
  }

  /// How many entries have a log σ of at most a value, by bisection.
  private func count(atMost logSigma: Double) -> Int {
    var (low, high) = (0, logSigmas.count)
    while low < high {
      let middle = (low + high) / 2
      if Double(logSigmas[middle]) <= logSigma { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// What is left after the last step (`final_sigmas_type`).
enum FinalSigma: String, CaseIterable, Sendable {
  case zero
  case sigmaMin = "sigma_min"

  init(_ configuration: SchedulerConfiguration) throws(SchedulerError) {
    self = try configuration.choice(.finalSigmasType, configuration.finalSigmasType, default: .zero)
  }
}
