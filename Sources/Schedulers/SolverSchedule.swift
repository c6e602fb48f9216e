import Foundation
import LatentDiffusionComponents
import Tensor

/// The differences between the solvers in λ.
struct SolverOptions {
  /// Nil where σ follows the training table.
  var spacing: SigmaSpacing?
  var final: FinalSigma
  /// `lambda_min_clipped`: timesteps with a smaller λ are left out.
  var leastLambda = -Float.infinity
  /// Whether timesteps that follow from σ are rounded to the nearest; otherwise they are rounded down.
  var rounded: Bool
  /// Whether `final_sigmas_type` `sigma_min` means the least spaced σ, rather than the table's.
  var endsWithSpacing: Bool
  /// Whether steps may not share a σ, as differences between them divide.
  var needsDistinct: Bool
  /// Whether the table leads from the picture to noise.
  var rises = false
  /// Whether timesteps are spread evenly, whatever the configuration says.
  var isEven = false
}

extension NoiseSchedule {
  /// The table of a solver of the diffusion ODE in λ = log(α/σ), on samples x = α x₀ + σ ε with α² + σ² = 1.
  ///
  /// Source: `set_timesteps` and `add_noise` of diffusers' `DPMSolverMultistepScheduler` and `UniPCMultistepScheduler`.
  init(
    solver configuration: SchedulerConfiguration, steps: Int, table: NoiseTable, scheduler: SchedulerKind, options: SolverOptions
  ) throws(SchedulerError) {
    guard configuration.useFlowSigmas != true else {
      throw .unusableValue(key: "use_flow_sigmas", found: "true", needed: "false: flow matching is not read")
    }
    let spaced = try SpacedTimesteps(configuration, default: .linspace, trainTimesteps: table.trainTimesteps)
    let trained = SigmaTable(table)
    let used = table.trainTimesteps - table.noisier(than: options.leastLambda)
    guard used > 0 else {
      throw .unusableValue(key: "lambda_min_clipped", found: "\(options.leastLambda)", needed: "so small that timesteps are left")
    }
    var timesteps = spaced.stoppingBeforeZero(steps: steps, last: used)
    if options.isEven { timesteps = spaced.spread(.linspace).stoppingBeforeZero(steps: steps, last: used) }
    if options.rises { timesteps = spaced.rising(steps: steps, last: used) }
    timesteps = try configuration.customTimesteps(steps: steps, trained: table.trainTimesteps) ?? timesteps
    var sigmas = timesteps.map(trained.sigma)
    var final = trained.sigmas[options.rises ? used - 1 : 0]
    if let custom = try configuration.customSigmas(steps: steps) {
      sigmas = custom
      // What is left may not be more than what the last step begins with.
      if !options.rises, let last = custom.last { final = min(final, Float(last)) }
      timesteps = sigmas.map(trained.timestep).map { $0.rounded(.toNearestOrEven) }
    } else if let spacing = options.spacing, configuration.sampling.timesteps == nil {
      let (largest, smallest) = (Double(trained.sigmas[trained.sigmas.count - 1]), Double(trained.sigmas[0]))
      let limits = try SigmaLimits(spacing == .lu ? SchedulerConfiguration() : configuration, largest: largest, smallest: smallest)
      let ends = options.rises ? (limits.smallest, limits.largest) : (limits.largest, limits.smallest)
      sigmas = spacing.sigmas(from: ends.0, to: ends.1, count: steps, table: trained)
      let rounded = options.rounded || !SigmaSpacing.keyed.contains(spacing)
      timesteps = sigmas.map(trained.timestep).map { $0.rounded(rounded ? .toNearestOrEven : .towardZero) }
      // Other programs' spacings end above the table's smallest σ.
      if options.endsWithSpacing, SigmaSpacing.keyed.contains(spacing), let last = sigmas.last { final = Float(last) }
    }
    let ratios = sigmas.map { Float($0) }
    if options.needsDistinct, let (sigma, _) = zip(ratios, ratios.dropFirst()).first(where: { $0 == $1 }) {
      throw .unusableSteps(steps, scheduler: scheduler, needed: "fewer, so that no two steps share the noise level \(sigma)")
    }
    let levels = (ratios + [options.final == .zero ? 0 : final]).map { NoiseLevel(ratio: $0) }
    self.init(timesteps: timesteps.map { Float($0) }, levels: levels)
  }
}

extension SchedulerConfiguration {
  /// The smallest λ of a timestep that is kept.
  var leastLambda: Float { Float(lambdaMinClipped ?? -.infinity) }
}

extension NoiseTable {
  /// How many timesteps have a λ below a limit (torch.searchsorted on the flipped table).
  fileprivate func noisier(than limit: Float) -> Int {
    alphasCumprod.reversed().prefix { log($0.squareRoot()) - log((1 - $0).squareRoot()) < limit }.count
  }
}

extension NoiseLevel {
  /// λ = log α − log σ: half the logarithm of the signal-to-noise ratio.
  var lambda: Float { log(alpha) - log(sigma) }
}
