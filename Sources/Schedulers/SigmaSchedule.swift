import Foundation
import Tensor

/// The table of a sampler in Karras' form, x = x₀ + σ ε: Euler, Euler ancestral, Heun, LMS.
///
/// Source: `set_timesteps`, `scale_model_input` and `add_noise` of diffusers' `EulerDiscreteScheduler` and its siblings.
struct SigmaSchedule: Sendable {
  /// The timestep of each step, not whole as a rule.
  var timesteps: [Float]
  /// σ at each step, and after the last.
  var sigmas: [Float]
  private let spacing: TimestepSpacing

  /// How σ is read off the training table between its entries (`interpolation_type`).
  enum Interpolation: String, CaseIterable {
    case linear
    case logLinear = "log_linear"
  }

  /// What a scheduler knows of the configuration.
  struct Options {
    /// Nil where σ follows the training table.
    var shape: SigmaShape?
    var interpolation = Interpolation.linear
    var final = FinalSigma.zero
    /// Whether `sigma_min` and `sigma_max` count.
    var hasLimits = true
  }

  init(_ configuration: SchedulerConfiguration, steps: Int, table: NoiseTable, options: Options = Options()) throws(SchedulerError) {
    let spaced = try SpacedTimesteps(configuration, default: .linspace, trainTimesteps: table.trainTimesteps)
    spacing = spaced.spacing
    var timesteps = spaced.reachingZero(steps: steps, rounded: false)
    let trained = SigmaTable(table)
    var sigmas =
      switch options.interpolation {
      case .linear: timesteps.map(trained.sigma)
      case .logLinear: Self.logLinear(trained.sigmas, count: steps + 1)
      }
    if let shape = options.shape {
      let limits = try SigmaLimits(
        options.hasLimits ? configuration : SchedulerConfiguration(), largest: sigmas[0], smallest: sigmas[sigmas.count - 1])
      sigmas = shape.sigmas(from: limits.largest, to: limits.smallest, count: steps)
      timesteps = sigmas.map(trained.timestep)
    }
    self.timesteps = timesteps.map { Float($0) }
    self.sigmas = sigmas.map { Float($0) } + [options.final == .zero ? 0 : trained.sigmas[0]]
  }

  private static func logLinear(_ trained: [Float], count: Int) -> [Double] {
    NoiseTable.equalSteps(from: log(trained[trained.count - 1]), to: log(trained[0]), count: count).map { Double(exp($0)) }
  }

  /// The first σ (linspace, trailing), or with leading spacing, which leaves the end of the table out, √(σ² + 1).
  var initialNoiseScale: Float {
    let largest = sigmas.max() ?? 1
    return spacing == .leading ? (largest * largest + 1).squareRoot() : largest
  }

  /// x / √(σ² + 1), which has the variance that the predictor was trained on.
  func scaleInput(_ sample: Tensor, at step: Int) -> Tensor {
    sample / (sigmas[step] * sigmas[step] + 1).squareRoot()
  }

  /// x₀ + σ ε.
  func addNoise(_ noise: Tensor, to sample: Tensor, at step: Int) -> Tensor {
    sample + noise * sigmas[step]
  }
}

/// The largest and smallest σ of a shaped schedule: the configuration's, or else the table's.
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
