import LatentDiffusionComponents
import Foundation
import Tensor

/// A predictor and corrector of one family: each step is corrected with the prediction that the next step makes anyway.
///
/// Source: Zhao, Bai, Rao, Zhou and Lu, "UniPC: a unified predictor-corrector framework for fast sampling of diffusion models",
/// arXiv 2302.04867; diffusers' `UniPCMultistepScheduler`. Flow matching and other solvers as predictor (`solver_p`) are refused.
public struct UniPCMultistepScheduler: Scheduler {
  /// `solver_type`: B(h), the paper's free function of the step.
  enum Solver: String, CaseIterable, Codable {
    /// B(h) = h.
    case bh1
    /// B(h) = exp(h) − 1.
    case bh2
    /// Names that belong to other solvers. diffusers takes `bh2` in their place.
    case midpoint, heun, logrho
  }

  public let schedule: NoiseSchedule
  private let prediction: PredictionType
  private let clipping: Clipping
  /// `predict_x0`: whether the solver works on predictions of x₀, or of ε.
  private let predictsOriginal: Bool
  private let solver: Solver
  private let lowersOrder: Bool
  /// The steps after which there is no correction (`disable_corrector`).
  private let uncorrected: Set<Int>

  /// The last converted predictions, as many as `solver_order`.
  private var history: MultistepHistory
  /// The step before.
  private var last: Start?

  private struct Start: Codable {
    /// What the step started from.
    let sample: Tensor
    /// The order it took.
    let order: Int
  }

  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `UniPCMultistepScheduler`'s defaults.
  ///   - steps: how many predictions, at most `num_train_timesteps`, and few enough that no two share a timestep.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration = SchedulerConfiguration(), steps: Int) throws(SchedulerError) {
    var defaults = NoiseTable.Defaults()
    defaults.keepsSignal = true
    let table = try NoiseTable(configuration, defaults: defaults)
    try table.check(steps: steps, for: .uniPC)
    guard configuration.solverP == nil else {
      throw .unusableValue(key: "solver_p", found: "another solver", needed: "absent: only its own predictor is used")
    }
    prediction = try PredictionType(configuration)
    predictsOriginal = configuration.predictX0 ?? true
    clipping = predictsOriginal ? try Clipping(configuration, clips: nil) : .none
    solver = try configuration.choice(.solverType, configuration.solverType, default: .bh2)
    let solverOrder = try configuration.count(.solverOrder, configuration.solverOrder, default: 2, in: 1...9)
    lowersOrder = configuration.lowerOrderFinal ?? true
    uncorrected = Set(configuration.disableCorrector ?? [])
    let final = try FinalSigma(configuration)
    guard final != .zero || (predictsOriginal && (lowersOrder || solverOrder == 1)) else {
      throw .unusableValue(
        key: "final_sigmas_type", found: "zero", needed: "sigma_min where predict_x0 or lower_order_final is off")
    }
    history = MultistepHistory(capacity: solverOrder)
    let spacing = try SigmaSpacing(configuration)
    schedule = try NoiseSchedule(
      solver: configuration, steps: steps, table: table, scheduler: .uniPC,
      options: SolverOptions(
        spacing: spacing, final: final, rounded: spacing == .karras, endsWithSpacing: true, needsDistinct: solverOrder > 1))
  }

  public mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) throws -> StepResult {
    try check(step, sample, output, history.outputs + [last?.sample].compactMap(\.self))
    let here = schedule.levels[step]
    let original = clipping(prediction.original(sample, output, alpha: here.alpha, sigma: here.sigma))
    let converted = predictsOriginal ? original : prediction.noise(sample, output, alpha: here.alpha, sigma: here.sigma)

    var corrected = sample
    if step > 0, let last, !uncorrected.contains(step - 1) {
      corrected = move(last.sample, from: step - 1, order: min(last.order, step, history.outputs.count), correctingWith: converted)
    }
    let most = lowersOrder ? min(history.capacity, schedule.timesteps.count - step) : history.capacity
    let order = min(most, history.outputs.count + 1, step + 1)
    history.add(converted)
    last = Start(sample: corrected, order: order)
    return StepResult(sample: move(corrected, from: step, order: order, correctingWith: nil), predictedOriginal: original)
  }

  /// One step of UniP. With the prediction at its end, it is a step of UniC instead (the paper's algorithms 1 and 2).
  private func move(_ sample: Tensor, from step: Int, order: Int, correctingWith next: Tensor?) -> Tensor {
    let (start, end) = (schedule.levels[step], schedule.levels[step + 1])
    let lambdaStep = end.lambda - start.lambda
    // The last step may lead to the noise level it starts from: nothing is left to do.
    guard lambdaStep != 0, let newest = history.outputs.first else { return sample }
    let h = predictsOriginal ? -lambdaStep : lambdaStep
    let ratios = (1..<max(order, 1)).map { (schedule.levels[step - $0].lambda - start.lambda) / lambdaStep }
    var differences = zip(ratios, history.outputs.dropFirst()).map { ($1 - newest) / $0 }
    if let next { differences.append(next - newest) }

    let weights = weights(h: h, ratios: ratios, corrects: next != nil)
    let (sampleWeight, scale) = predictsOriginal ? (end.sigma / start.sigma, end.alpha) : (end.alpha / start.alpha, end.sigma)
    let linear = sampleWeight * sample - (scale * expm1(h)) * newest
    let terms = zip(weights, differences).map { $0 * $1 }
    guard let first = terms.first else { return linear }
    return linear - (scale * stepFunction(h)) * terms.dropFirst().reduce(first, +)
  }

  /// B(h).
  private func stepFunction(_ h: Float) -> Float { solver == .bh1 ? h : expm1(h) }

  /// The weights a of the differences, which make R a = b, in float32 as PyTorch has them (the paper's equation 5):
  /// R_kj = r_j^{k−1}, b_k = k! φ_{k+1}(h)/B(h); the predictor leaves out the last row and column.
  private func weights(h: Float, ratios: [Float], corrects: Bool) -> [Float] {
    let unknowns = ratios.count + (corrects ? 1 : 0)
    // One unknown of the predictor, and of a corrector of first order, is set to ½ in place of its solution.
    guard unknowns > 1 else { return Array(repeating: 0.5, count: unknowns) }
    var phi = expm1(h) / h - 1
    var factorial: Float = 1
    var right: [Float] = []
    for k in 1...unknowns {
      right.append(phi * factorial / stepFunction(h))
      factorial *= Float(k + 1)
      phi = phi / h - 1 / factorial
    }
    let nodes = corrects ? ratios + [1] : ratios
    let rows = (0..<unknowns).map { power in nodes.map { pow($0, Float(power)) } }
    return solve(rows, right)
  }
}

/// The solution of a small system of linear equations, by elimination with pivots.
/// - Precondition: the matrix is square and as high as `right` is long.
private func solve(_ matrix: [[Float]], _ right: [Float]) -> [Float] {
  var rows = zip(matrix, right).map { $0 + [$1] }
  let count = rows.count
  for column in 0..<count {
    let pivot = (column..<count).max { abs(rows[$0][column]) < abs(rows[$1][column]) } ?? column
    rows.swapAt(column, pivot)
    for row in (column + 1)..<max(count, column + 1) {
      let factor = rows[row][column] / rows[column][column]
      for k in column...count { rows[row][k] -= factor * rows[column][k] }
    }
  }
  var solution = [Float](repeating: 0, count: count)
  for row in (0..<count).reversed() {
    let known = (row + 1..<max(count, row + 1)).reduce(Float(0)) { $0 + rows[row][$1] * solution[$1] }
    solution[row] = (rows[row][count] - known) / rows[row][row]
  }
  return solution
}
