import LatentDiffusionComponents
import Tensor

/// Linear multistep sampling of fourth order on the probability flow.
///
/// Source: `sample_lms` of k-diffusion, after Karras et al., arXiv 2206.00364; diffusers' `LMSDiscreteScheduler`.
public struct LMSDiscreteScheduler: Scheduler {
  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  /// The last derivatives.
  private var history = MultistepHistory(capacity: 4)

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `LMSDiscreteScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.rescales = false
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .lms)
    prediction = try PredictionType(configuration)
    let spacing = try SigmaSpacing(configuration)
    // The class reads sigma_min and sigma_max for all spacings but Karras'.
    schedule = try NoiseSchedule(
      karras: configuration, steps: steps, table: table, options: KarrasOptions(spacing: spacing, hasLimits: spacing != .karras))
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs)
    let sigma = schedule.levels[step].sigma
    let original = prediction.original(sample, output, sigma: sigma)
    history.add((sample - original) / sigma)
    // As in diffusers, the order follows from the place in the table, even where the loop began late and derivatives are missing.
    let order = min(step + 1, max(history.capacity, 1))
    let weighted = zip(0..<order, history.outputs).map { Float(weight(of: $0, order: order, at: step)) * $1 }
    let change = weighted.dropFirst().reduce(weighted[0], +)
    return StepResult(sample: sample + change, predictedOriginal: original)
  }

  /// The integral from σ_i to σ_{i+1} of the polynomial that is 1 at σ_{i−current} and 0 at the other last `order` sigmas.
  private func weight(of current: Int, order: Int, at step: Int) -> Double {
    func sigma(_ index: Int) -> Double { Double(schedule.levels[index].sigma) }
    func basis(_ tau: Double) -> Double {
      (0..<order).filter { $0 != current }.reduce(1) { product, other in
        product * (tau - sigma(step - other)) / (sigma(step - current) - sigma(step - other))
      }
    }
    // Gauss' rule with two nodes is exact for the third degree.
    let (middle, half) = ((sigma(step) + sigma(step + 1)) / 2, (sigma(step + 1) - sigma(step)) / 2)
    let node = half / 3.0.squareRoot()
    return half * (basis(middle - node) + basis(middle + node))
  }
}
