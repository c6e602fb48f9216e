import Foundation
import LatentDiffusionComponents
import Tensor

/// The differences between the samplers in Karras' form.
struct KarrasOptions {
  /// How σ is read off the training table between its entries (`interpolation_type`).
  enum Interpolation: String, CaseIterable {
    case linear
    case logLinear = "log_linear"
  }

  /// Nil where σ follows the training table.
  var spacing: SigmaSpacing?
  var interpolation = Interpolation.linear
  var final = FinalSigma.zero
  /// Whether `sigma_min` and `sigma_max` count.
  var hasLimits = true
  /// Whether timesteps that follow from Karras' σ are rounded to the nearest.
  var roundsKarras = false
  /// Whether timesteps in equal steps stay in double precision.
  var isDouble = false
}

extension NoiseSchedule {
  /// The table of a sampler in Karras' form, x = x₀ + σ ε.
  ///
  /// Source: `set_timesteps`, `scale_model_input` and `add_noise` of diffusers' `EulerDiscreteScheduler` and its siblings.
  init(
    karras configuration: SchedulerConfiguration, steps: Int, table: NoiseTable, options: KarrasOptions = KarrasOptions()
  ) throws(SchedulerError) {
    let spaced = try SpacedTimesteps(configuration, default: .linspace, trainTimesteps: table.trainTimesteps)
    var timesteps =
      try configuration.customTimesteps(steps: steps, trained: table.trainTimesteps)
      ?? spaced.reachingZero(steps: steps, rounded: false, isDouble: options.isDouble)
    let trained = SigmaTable(table)
    var sigmas =
      switch configuration.sampling.timesteps == nil ? options.interpolation : .linear {
      case .linear: timesteps.map(trained.sigma)
      case .logLinear: trained.logLinear(count: steps + 1)
      }
    if let custom = try configuration.customSigmas(steps: steps) {
      sigmas = custom
      timesteps = sigmas.map(trained.timestep)
    } else if let spacing = options.spacing, configuration.sampling.timesteps == nil {
      // diffusers' spacings lie between σ of the first and the last timestep, the others between the table's ends.
      let ends = SigmaSpacing.keyed.contains(spacing) ? sigmas : trained.sigmas.reversed().map { Double($0) }
      let limits = try SigmaLimits(
        options.hasLimits ? configuration : SchedulerConfiguration(), largest: ends[0], smallest: ends[ends.count - 1])
      sigmas = spacing.sigmas(from: limits.largest, to: limits.smallest, count: steps, table: trained)
      timesteps = sigmas.map(trained.timestep)
      if options.roundsKarras, spacing == .karras { timesteps = timesteps.map { $0.rounded(.toNearestOrEven) } }
    }
    let all = sigmas.map { Float($0) } + [options.final == .zero ? 0 : trained.sigmas[0]]
    let largest = all.max() ?? 1
    // Leading timesteps leave out the end of the table, so that the first sample has signal, too.
    self.init(
      timesteps: timesteps.map { Float($0) }, levels: all.map { NoiseLevel(karras: $0) },
      initialNoiseScale: spaced.spacing == .leading ? (largest * largest + 1).squareRoot() : largest)
  }
}

extension NoiseSchedule {
  /// The same of a sampler that diffusers does not have, with the defaults of Euler's.
  init(kDiffusion configuration: SchedulerConfiguration, steps: Int, scheduler: SchedulerKind) throws(SchedulerError) {
    let table = try NoiseTable(kDiffusion: configuration, steps: steps, scheduler: scheduler)
    try self.init(karras: configuration, steps: steps, table: table, options: KarrasOptions(spacing: try SigmaSpacing(configuration)))
  }

  /// The table of a sampler in Karras' form with a second prediction in each step but the last, at a σ on the way. As in diffusers, the σ that stands
  /// there is the one at the step's end.
  /// - Parameter middle: σ of the second prediction in a step between two σ.
  init(
    twoPredictions configuration: SchedulerConfiguration, steps: Int, table: NoiseTable, options: KarrasOptions,
    middle: (Float, Float) -> Float
  ) throws(SchedulerError) {
    let single = try NoiseSchedule(karras: configuration, steps: steps, table: table, options: options)
    let sigmas = single.levels.map(\.sigma).dropLast()
    self = single.interleaved(with: zip(sigmas, sigmas.dropFirst()).map(middle), of: table)
  }

  private func interleaved(with middles: [Float], of table: NoiseTable) -> NoiseSchedule {
    let trained = SigmaTable(table)
    let between = middles.map { Float(trained.timestep(at: Double($0))) }
    return NoiseSchedule(
      timesteps: timesteps.prefix(1) + zip(between, timesteps.dropFirst()).flatMap { [$0, $1] },
      levels: levels.prefix(1)
        + zip(middles, levels.dropFirst()).flatMap { middle, end in
          [NoiseLevel(alpha: 1, sigma: end.sigma, inputDivisor: (middle * middle + 1).squareRoot()), end]
        } + levels.suffix(1),
      initialNoiseScale: initialNoiseScale)
  }
}

/// The way of an ancestral step: down by the ODE, then up again by noise.
struct AncestralStep {
  /// σ_down.
  let down: Float
  /// σ_up, where σ_down² + σ_up² = σ_{i+1}².
  let up: Float
  /// Halfway in log σ to where the ODE's part of the step ends.
  let middle: Float

  /// - Parameter eta: how much of the noise is fresh, 0…1.
  init(from sigma: Float, to next: Float, eta: Float = 1) {
    up = min(next, eta * (next * next * (sigma * sigma - next * next) / (sigma * sigma)).squareRoot())
    down = (next * next - up * up).squareRoot()
    middle = halfway(sigma, down)
  }
}

/// The σ halfway between two in log σ.
func halfway(_ sigma: Float, _ next: Float) -> Float { exp((log(sigma) + log(next)) / 2) }

/// The largest and smallest σ of a spacing: the configuration's, or else the table's.
struct SigmaLimits {
  let largest: Double
  let smallest: Double

  init(_ configuration: SchedulerConfiguration, largest: Double, smallest: Double) throws(SchedulerError) {
    let range = 1e-10...1e10
    self.largest = configuration.sigmaMax ?? largest
    self.smallest = configuration.sigmaMin ?? smallest
    _ = try configuration.number(.sigmaMax, self.largest, default: 1, in: range)
    _ = try configuration.number(.sigmaMin, self.smallest, default: 1, in: range)
    guard self.smallest <= self.largest else {
      throw .unusableValue(key: "sigma_min", found: "\(self.smallest)", needed: "at most sigma_max, \(self.largest)")
    }
  }
}
