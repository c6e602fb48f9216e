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
}

extension NoiseSchedule {
  /// The table of a sampler in Karras' form, x = x₀ + σ ε: Euler, Euler ancestral, Heun, LMS.
  ///
  /// Source: `set_timesteps`, `scale_model_input` and `add_noise` of diffusers' `EulerDiscreteScheduler` and its siblings.
  init(
    karras configuration: SchedulerConfiguration, steps: Int, table: NoiseTable, options: KarrasOptions = KarrasOptions()
  ) throws(SchedulerError) {
    let spaced = try SpacedTimesteps(configuration, default: .linspace, trainTimesteps: table.trainTimesteps)
    var timesteps = spaced.reachingZero(steps: steps, rounded: false)
    let trained = SigmaTable(table)
    var sigmas =
      switch options.interpolation {
      case .linear: timesteps.map(trained.sigma)
      case .logLinear: trained.logLinear(count: steps + 1)
      }
    if let spacing = options.spacing {
      let limits = try SigmaLimits(
        options.hasLimits ? configuration : SchedulerConfiguration(), largest: sigmas[0], smallest: sigmas[sigmas.count - 1])
      sigmas = spacing.sigmas(from: limits.largest, to: limits.smallest, count: steps)
      timesteps = sigmas.map(trained.timestep)
    }
    let all = sigmas.map { Float($0) } + [options.final == .zero ? 0 : trained.sigmas[0]]
    let largest = all.max() ?? 1
    // Leading timesteps leave out the end of the table, so that the first sample has signal, too.
    self.init(
      timesteps: timesteps.map { Float($0) }, levels: all.map { NoiseLevel(karras: $0) },
      initialNoiseScale: spaced.spacing == .leading ? (largest * largest + 1).squareRoot() : largest)
  }
}

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
