import Foundation
import LatentDiffusionComponents
import Tensor

/// How a network of Karras' preconditioning is answered: x₀ = c_skip x + c_out F(c_in x) where x = x₀ + σ ε.
///
/// Source: Karras et al., arXiv 2206.00364, table 1; `precondition_outputs` of diffusers' `EDMEulerScheduler`.
struct EDMPreconditioning: Sendable, Codable {
  /// σ_data.
  let sigmaData: Float
  /// Whether the network predicts the velocity, which turns its sign.
  private let isVelocity: Bool

  init(_ configuration: SchedulerConfiguration) throws(SchedulerError) {
    sigmaData = try configuration.number(.sigmaData, configuration.sigmaData, default: 0.5, in: 1e-6...1e6)
    isVelocity =
      try configuration.choice(
        .predictionType, configuration.predictionType, default: PredictionType.epsilon, among: [.epsilon, .vPrediction]) == .vPrediction
  }

  func original(_ sample: Tensor, _ output: Tensor, sigma: Float) -> Tensor {
    let variance = sigma * sigma + sigmaData * sigmaData
    let out = (isVelocity ? -sigma : sigma) * sigmaData / variance.squareRoot()
    return (sigmaData * sigmaData / variance) * sample + out * output
  }
}

/// How σ falls where a network was trained on σ and not on a table (`sigma_schedule`).
private enum EDMSpacing: String, CaseIterable {
  case karras, exponential
}

extension NoiseSchedule {
  /// The table of a network of Karras' preconditioning, which is told ¼ log σ: EDM Euler and EDM DPM-Solver.
  ///
  /// Source: `set_timesteps` of diffusers' `EDMEulerScheduler` and `EDMDPMSolverMultistepScheduler`.
  init(
    edm configuration: SchedulerConfiguration, steps: Int, preconditioning: EDMPreconditioning, scheduler: SchedulerKind
  ) throws(SchedulerError) {
    _ = try configuration.trainTimesteps(default: 1000, steps: steps, scheduler: scheduler)
    let limits = try SigmaLimits(configuration, largest: 80, smallest: 0.002)
    let rho = Double(try configuration.number(.rho, configuration.rho, default: 7, in: 0.1...100))
    let own: EDMSpacing = try configuration.choice(.sigmaSchedule, configuration.sigmaSchedule, default: .karras)
    let spacing = configuration.spacing ?? (own == .karras ? .karras : .exponential)
    guard !spacing.readsTable else {
      throw .unusableSetting(
        "spacing", found: spacing.rawValue, needed: "karras or exponential, as \(scheduler.rawValue) has no table of training")
    }
    let spaced = spacing.sigmas(from: limits.largest, to: limits.smallest, count: steps, rho: rho)
    let sigmas = try (configuration.customSigmas(steps: steps) ?? spaced).map { Float($0) }
    let final: Float = try FinalSigma(configuration) == .zero ? 0 : Float(limits.smallest)
    self.init(
      timesteps: sigmas.map { 0.25 * log($0) },
      levels: (sigmas + [final]).map {
        let data = preconditioning.sigmaData
        return NoiseLevel(alpha: 1, sigma: $0, inputDivisor: ($0 * $0 + data * data).squareRoot())
      }, initialNoiseScale: (sigmas[0] * sigmas[0] + 1).squareRoot())
  }
}
