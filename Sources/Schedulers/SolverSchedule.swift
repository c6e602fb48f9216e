import Foundation
import Tensor

/// The table of a solver of the diffusion ODE in λ = log(α/σ), on samples x = α x₀ + σ ε: DPM-Solver, UniPC.
///
/// Source: `set_timesteps` and `add_noise` of diffusers' `DPMSolverMultistepScheduler` and `UniPCMultistepScheduler`.
struct SolverSchedule: Sendable {
  /// The timestep of each step, whole.
  let timesteps: [Float]
  /// σ/α at each step, and after the last.
  let sigmas: [Float]

  /// What sets the solvers apart.
  struct Options {
    /// Nil where σ follows the training table.
    var shape: SigmaShape?
    var final: FinalSigma
    /// `lambda_min_clipped`: timesteps with a smaller λ are left out.
    var leastLambda = -Float.infinity
    /// Whether the timesteps of Lu's, exponential and other shapes are rounded; else they are cut.
    var rounded: Bool
    /// Whether the least σ of a shaped schedule, rather than the table's, stays at the end with `sigma_min`.
    var endsWithShape: Bool
    /// Whether steps may not share a σ, as differences between them divide.
    var needsDistinct: Bool
  }

  init(
    _ configuration: SchedulerConfiguration, steps: Int, table: NoiseTable, scheduler: String, options: Options
  ) throws(SchedulerError) {
    let spaced = try SpacedTimesteps(configuration, default: .linspace, trainTimesteps: table.trainTimesteps)
    let trained = SigmaTable(table)
    let used = table.trainTimesteps - Self.noisier(than: options.leastLambda, in: table)
    guard used > 0 else {
      throw .unusableValue(key: "lambda_min_clipped", found: "\(options.leastLambda)", needed: "so small that timesteps are left")
    }
    var timesteps = spaced.stoppingBeforeZero(steps: steps, last: used)
    var sigmas = timesteps.map(trained.sigma)
    var final = trained.sigmas[0]
    if let shape = options.shape {
      let (largest, smallest) = (Double(trained.sigmas[trained.sigmas.count - 1]), Double(trained.sigmas[0]))
      let limits = try SigmaLimits(shape == .lu ? SchedulerConfiguration() : configuration, largest: largest, smallest: smallest)
      sigmas = shape.sigmas(from: limits.largest, to: limits.smallest, count: steps)
      timesteps = sigmas.map(trained.timestep).map { $0.rounded(options.rounded ? .toNearestOrEven : .towardZero) }
      if options.endsWithShape, let last = sigmas.last { final = Float(last) }
    }
    self.timesteps = timesteps.map { Float($0) }
    self.sigmas = sigmas.map { Float($0) } + [options.final == .zero ? 0 : final]
    let neighbours = zip(self.sigmas, self.sigmas.dropFirst().dropLast())
    if options.needsDistinct, let (sigma, _) = neighbours.first(where: { $0 == $1 }) {
      throw .unusableSteps(steps, scheduler: scheduler, needed: "fewer, so that no two steps share the noise level \(sigma)")
    }
  }

  /// How many timesteps have a λ below a limit (torch.searchsorted on the flipped table).
  private static func noisier(than limit: Float, in table: NoiseTable) -> Int {
    table.alphasCumprod.reversed().prefix { log($0.squareRoot()) - log((1 - $0).squareRoot()) < limit }.count
  }

  /// α x₀ + σ ε.
  func addNoise(_ noise: Tensor, to sample: Tensor, at step: Int) -> Tensor {
    let level = NoiseLevel(sigmas[step])
    return level.alpha * sample + level.sigma * noise
  }

  /// The noise level of a step, or after the last.
  func level(_ step: Int) -> NoiseLevel { NoiseLevel(sigmas[step]) }
}

/// α and σ with α² + σ² = 1, and λ = log α − log σ, half the logarithm of the signal-to-noise ratio.
struct NoiseLevel {
  let alpha: Float
  let sigma: Float
  let lambda: Float

  /// - Parameter ratio: σ/α.
  init(_ ratio: Float) {
    alpha = 1 / (ratio * ratio + 1).squareRoot()
    sigma = ratio * alpha
    lambda = log(alpha) - log(sigma)
  }
}
