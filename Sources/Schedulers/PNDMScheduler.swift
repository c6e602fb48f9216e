import LatentDiffusionComponents
import Tensor

/// Pseudo linear multistep sampling of fourth order, with or without a pseudo Runge–Kutta warm-up (`skip_prk_steps`).
///
/// The warm-up takes four predictions a step for the first three steps. Without it the second timestep is visited twice, so
/// there is one prediction more than steps. As in diffusers, both phases count the steps taken, not the places in the table.
///
/// Source: Liu, Ren, Lin and Zhao, "Pseudo numerical methods for diffusion models on manifolds", arXiv 2202.09778; diffusers'
/// `PNDMScheduler`. diffusers refuses predictions of the clean sample; this scheduler converts them as it converts velocities.
public struct PNDMScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let alphas: AlphaTable
  private let prediction: PredictionType
  /// The number of training timesteps between two steps.
  private let stride: Int
  /// The timestep that each prediction of the warm-up steps from.
  private let warmUp: [Float]

  /// The number of predictions so far.
  private var taken = 0
  private var history = MultistepHistory(capacity: 4)
  /// The sample at the start of a step of several predictions.
  private var origin: Tensor?
  /// The Runge–Kutta sum so far.
  private var weighted: Tensor?

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `PNDMScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`, and at least 4 with the warm-up.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .pndm)
    prediction = try PredictionType(configuration)
    stride = table.trainTimesteps / steps
    let spaced = try SpacedTimesteps(configuration, default: .leading, trainTimesteps: table.trainTimesteps)
    var timesteps = spaced.reachingZero(steps: steps, rounded: true).map { Int($0) }
    if configuration.skipPRKSteps ?? false {
      warmUp = []
      if steps > 1 { timesteps.insert(timesteps[1], at: 1) }
    } else {
      guard steps >= 4 else {
        throw .unusableSteps(steps, scheduler: .pndm, needed: "4 or more, or set skip_prk_steps in its configuration")
      }
      // Each of the first three steps looks at its start, twice at its middle, and at its end.
      let half = stride / 2
      let runge = (0..<3).flatMap { step -> [Int] in
        let (start, end) = (timesteps[step], timesteps[step + 1])
        return [start, end + half, end + half, end]
      }
      warmUp = timesteps.prefix(3).flatMap { Array(repeating: Float($0), count: 4) }
      timesteps = runge + timesteps.dropFirst(3)
    }
    alphas = AlphaTable(table, setsAlphaToOne: configuration.setAlphaToOne ?? false)
    schedule = try alphas.schedule(timesteps, prediction: prediction, scheduler: .pndm)
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs + [origin, weighted].compactMap(\.self))
    let timestep = schedule.timesteps[step]
    let alphaBar = alphas[timestep]
    let original = prediction.original(sample, output, alpha: alphaBar.squareRoot(), sigma: (1 - alphaBar).squareRoot())
    let next =
      if warmUp.indices.contains(taken) {
        rungeKutta(sample, output, from: warmUp[taken], to: timestep)
      } else {
        linearMultistep(sample, output, timestep)
      }
    taken &+= 1
    return StepResult(sample: next, predictedOriginal: original)
  }

  /// A quarter of a Runge–Kutta step (equation 13).
  private mutating func rungeKutta(_ sample: Tensor, _ output: Tensor, from start: Float, to timestep: Float) -> Tensor {
    let end = timestep - (taken % 2 == 0 ? Float(stride / 2) : 0)
    var slope = output
    switch taken % 4 {
    case 0:
      weighted = weighted.map { $0 + (1 / 6) * output } ?? (1 / 6) * output
      history.add(output)
      origin = sample
    case 3:
      slope = weighted.map { $0 + (1 / 6) * output } ?? output
      weighted = nil
    default:
      weighted = weighted.map { $0 + (1 / 3) * output }
    }
    return transfer(origin ?? sample, from: start, to: end, output: slope)
  }

  /// A step from the last four predictions (equation 12), or from fewer at the start.
  private mutating func linearMultistep(_ sample: Tensor, _ output: Tensor, _ timestep: Float) -> Tensor {
    var (start, end) = (timestep, timestep - Float(stride))
    if taken == 1 {
      // The second prediction, at the end of the first step, takes that step again with the mean of both slopes.
      (start, end) = (timestep + Float(stride), timestep)
      let slope = history.outputs.first.map { (output + $0) / 2 } ?? output
      defer { origin = nil }
      return transfer(origin ?? sample, from: start, to: end, output: slope)
    }
    history.add(output)
    if taken == 0 { origin = sample }
    return transfer(sample, from: start, to: end, output: history.adamsBashforth)
  }

  /// The transfer part φ (equation 11): x_{t−δ} = √(ᾱ_{t−δ}/ᾱ_t) x_t
  /// − (ᾱ_{t−δ} − ᾱ_t) ε / (ᾱ_t √(1 − ᾱ_{t−δ}) + √(ᾱ_t (1 − ᾱ_t) ᾱ_{t−δ})).
  private func transfer(_ sample: Tensor, from start: Float, to end: Float, output: Tensor) -> Tensor {
    let (alphaBar, nextAlphaBar) = (alphas[start], alphas[end])
    let (betaBar, nextBetaBar) = (1 - alphaBar, 1 - nextAlphaBar)
    let epsilon = prediction.noise(sample, output, alpha: alphaBar.squareRoot(), sigma: betaBar.squareRoot())
    let divisor = alphaBar * nextBetaBar.squareRoot() + (alphaBar * betaBar * nextAlphaBar).squareRoot()
    return (nextAlphaBar / alphaBar).squareRoot() * sample - (nextAlphaBar - alphaBar) * epsilon / divisor
  }
}
