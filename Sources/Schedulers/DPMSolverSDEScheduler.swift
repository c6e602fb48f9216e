import Foundation
import LatentDiffusionComponents
import Tensor

/// DPM-Solver++ of second order on the SDE, with noise from a Brownian path: a step to its middle in log σ, then the whole step by the prediction there.
///
/// The path's seed is `noise_sampler_seed`, or else the next seed of the request's noise, as PyTorch's global generator gives it to diffusers. The path has
/// no part in what is drawn otherwise, so the same seed with more steps gives a similar picture.
///
/// Source: `sample_dpmpp_sde` of k-diffusion; diffusers' `DPMSolverSDEScheduler`. diffusers refuses predictions of the clean sample here; this scheduler
/// takes them as Euler's method does.
public struct DPMSolverSDEScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let eta: Float
  private let noiseScale: Float
  private var path: BrownianPath
  /// Where a step started that waits for its second prediction.
  private var start: Tensor?

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `DPMSolverSDEScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`. All but the last take two predictions.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(twoPredictions: configuration, steps: steps, scheduler: .dpmSolverSDE)
    prediction = try PredictionType(configuration)
    eta = try configuration.eta(default: 1)
    noiseScale = try configuration.noiseScale()
    let spacing = try SigmaSpacing(configuration)
    schedule = try NoiseSchedule(
      twoPredictions: configuration, steps: steps, table: table,
      options: KarrasOptions(spacing: spacing, hasLimits: spacing != .karras, isDouble: true), middle: Self.middle)
    path = try BrownianPath(configuration)
  }

  public var order: Int { 2 }

  /// Halfway in log σ.
  private static func middle(_ sigma: Float, _ next: Float) -> Float { exp(-middleTime(sigma, next)) }

  /// The middle's time, −log σ.
  private static func middleTime(_ sigma: Float, _ next: Float) -> Float {
    let time = -log(sigma)
    return time + (-log(next) - time) * 0.5
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, [start].compactMap(\.self))
    if let start, step > 0 {
      self.start = nil
      let (sigma, next) = (schedule.levels[step - 1].sigma, schedule.levels[step].sigma)
      let original = prediction.original(sample, output, sigma: Self.middle(sigma, next))
      return StepResult(sample: move(start, original, from: sigma, to: -log(next), drawing: &noise), predictedOriginal: original)
    }
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let original = prediction.original(sample, output, sigma: sigma)
    guard next > 0 else {
      return StepResult(sample: sample + (sample - original) / sigma * (next - sigma), predictedOriginal: original)
    }
    start = sample
    return StepResult(
      sample: move(sample, original, from: sigma, to: Self.middleTime(sigma, next), drawing: &noise), predictedOriginal: original)
  }

  /// A step of first order in log σ to a level below a time's, and the path's noise up to that.
  private mutating func move(
    _ sample: Tensor, _ original: Tensor, from sigma: Float, to next: Float, drawing noise: inout any NoiseSource
  ) -> Tensor {
    let time = -log(sigma)
    let (from, to) = (exp(-time), exp(-next))
    let way = AncestralStep(from: from, to: to, eta: eta)
    let down = -log(way.down)
    let mean = (exp(-down) / from) * sample - expm1(time - down) * original
    return mean + path.noise(from: from, to: to, of: schedule, like: sample, drawing: &noise) * (noiseScale * way.up)
  }
}

/// exp and log, rounded correctly: an increment of a path is asked for between multiples of 10⁻⁶, so that the last bit of σ counts.
private func exp(_ x: Float) -> Float { Float(Foundation.exp(Double(x))) }
private func log(_ x: Float) -> Float { Float(Foundation.log(Double(x))) }

/// The Brownian path of a run, whose seed is drawn when it is first asked for. Pictures with seeds of their own have paths of their own.
struct BrownianPath: Sendable, Codable {
  private var seeds: [NoiseSeed] = []

  init(_ configuration: SchedulerConfiguration) throws(SchedulerError) {
    guard configuration.noiseSamplerSeed != nil else { return }
    seeds = [NoiseSeed(UInt64(try configuration.count(.noiseSamplerSeed, configuration.noiseSamplerSeed, default: 0, in: 0...Int.max)))]
  }

  /// Standard normal noise for a step between two σ of a schedule.
  mutating func noise(
    from sigma: Float, to next: Float, of schedule: NoiseSchedule, like sample: Tensor, drawing noise: inout any NoiseSource
  ) -> Tensor {
    if seeds.isEmpty { seeds = noise.seeds() }
    let sigmas = schedule.levels.map(\.sigma).filter { $0 > 0 }
    func path(_ seed: UInt64, like sample: Tensor) -> Tensor {
      BrownianTree(entropy: seed, from: sigmas.min() ?? 0, to: sigmas.max() ?? 0).noise(from: sigma, to: next, like: sample)
    }
    func path(_ seed: NoiseSeed, like sample: Tensor) -> Tensor {
      let start = path(seed.first, like: sample)
      guard let second = seed.second else { return start }
      return Tensor(
        sphericalInterpolation(from: start.elements, to: path(second, like: sample).elements, at: seed.position), shape: sample.shape)
    }
    guard seeds.count > 1, sample.shape[0].isMultiple(of: seeds.count) else { return path(seeds.first ?? NoiseSeed(0), like: sample) }
    let each = sample.shape[0] / seeds.count
    return Tensor.concatenated(seeds.indices.map { path(seeds[$0], like: sample.rows($0 * each..<($0 + 1) * each)) }, axis: 0)
  }
}
