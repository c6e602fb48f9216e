import Foundation

/// How σ falls from its largest to its smallest value, where it does not follow the training table.
///
/// Source: `_convert_to_karras` and its siblings in diffusers' schedulers.
public enum SigmaSpacing: String, CaseIterable, Sendable, Codable {
  /// σ^(1/7) in equal steps (Karras et al., arXiv 2206.00364, equation 5).
  case karras
  /// log σ in equal steps.
  case exponential
  /// Quantiles of the distribution Beta(0.6, 0.6) ("Beta sampling is all you need", arXiv 2407.12173).
  case beta
  /// log σ in equal steps, σ_min and σ_max always the table's (Lu et al.; diffusers' `use_lu_lambdas`).
  case lu

  /// The spacing that the configuration turns on; nil where it turns on none.
  /// - Parameter lu: whether the scheduler has `use_lu_lambdas`.
  init?(_ configuration: SchedulerConfiguration, lu: Bool = false) throws(SchedulerError) {
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

  /// Sigmas from the largest down.
  func sigmas(from largest: Double, to smallest: Double, count: Int) -> [Double] {
    switch self {
    case .karras:
      let rho = 7.0
      return equalSteps(from: 0, to: 1, count: count).map { ramp in
        pow(pow(largest, 1 / rho) + ramp * (pow(smallest, 1 / rho) - pow(largest, 1 / rho)), rho)
      }
    case .exponential, .lu:
      return equalSteps(from: log(largest), to: log(smallest), count: count).map { exp($0) }
    case .beta:
      return equalSteps(from: 0, to: 1, count: count).map { smallest + Self.betaQuantile(1 - $0) * (largest - smallest) }
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
