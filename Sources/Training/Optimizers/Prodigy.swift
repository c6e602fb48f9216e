import Foundation
import Tensor

/// Adam that finds its own step size: d, a lower bound of the distance from the beginning to the solution, grows with what the gradients show of it.
///
/// r ← β₃ r + (d/d₀) η d ⟨g, θ₀ − θ⟩; s ← β₃ s + (d/d₀) η d g; m ← β₁ m + (1 − β₁) d g; v ← β₂ v + (1 − β₂) d² g²;
/// d' = max(d, d_coef · r / ‖s‖₁); θ ← θ − η d (m / (√v + d' ε) + λ θ); d ← d'. The sums go over all parameters.
///
/// Source: Mishchenko and Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", arXiv 2306.06101; the package `prodigyopt`.
public struct Prodigy: Optimizer {
  /// What is seldom changed.
  public struct Settings: Sendable, Equatable {
    /// β₁, how much the average of gradients keeps at a step; from 0 to below 1.
    public var beta1 = 0.9
    /// β₂, how much the average of their squares keeps; from 0 to below 1.
    public var beta2 = 0.999
    /// β₃, how much the sums of the estimate keep; √β₂ where it is nil.
    public var beta3: Double?
    /// ε, above 0.
    public var epsilon = 1e-8
    /// λ, from 0 up.
    public var weightDecay = 0.0
    /// Whether λ θ is subtracted from the parameters as AdamW does it, and not added to the gradients.
    public var decouples = true
    /// Whether η is multiplied by Adam's √(1 − β₂ᵗ) / (1 − β₁ᵗ).
    public var correctsBias = false
    /// Whether s grows by d² instead of d η, so that the small η of a warm-up does not make the estimate too large.
    public var safeguardsWarmup = false
    /// d₀, the first estimate; above 0.
    public var firstEstimate = 1e-6
    /// `d_coef`, what an estimate is multiplied by: the way to longer or shorter steps; above 0.
    public var coefficient = 1.0
    /// The most that the estimate grows by at a step, above 1; nil without a limit.
    public var growthLimit: Double?

    /// The defaults of `prodigyopt`.
    public init() {}
  }

  private let settings: Settings
  /// t − 1: the steps taken.
  private var steps = 0
  /// d, the largest estimate so far, and r.
  private var estimate: Double, largest: Double, numerator = 0.0
  /// m, v and s of every parameter.
  private var moments: [[Tensor]] = []
  /// θ₀.
  private var start: [Tensor] = []

  private static let names = ["exp_avg", "exp_avg_sq", "s"], startName = "p0"

  public var rememberedCopies: Int { 4 }

  public var usualLearningRate: Float { 1 }

  /// The estimate d: what the learning rate is multiplied by at the next step.
  public var stepSize: Double { estimate }

  /// - Throws: `TrainingError.unusableSetting`.
  public init(_ settings: Settings = Settings()) throws(TrainingError) {
    self.settings = settings
    (estimate, largest) = (settings.firstEstimate, settings.firstEstimate)
    try TrainingError.check("beta1", settings.beta1, "from 0 to below 1") { 0..<1 ~= $0 }
    try TrainingError.check("beta2", settings.beta2, "from 0 to below 1") { 0..<1 ~= $0 }
    try TrainingError.check("beta3", settings.beta3 ?? 0, "from 0 to below 1") { 0..<1 ~= $0 }
    try TrainingError.check("epsilon", settings.epsilon, "above 0") { $0 > 0 }
    try TrainingError.check("the weight decay", settings.weightDecay, "0 or more") { $0 >= 0 }
    try TrainingError.check("the first estimate", settings.firstEstimate, "from 1e-12 to 1") { 1e-12...1 ~= $0 }
    try TrainingError.check("the estimate's coefficient", settings.coefficient, "above 0") { $0 > 0 }
    try TrainingError.check("the limit of the estimate's growth", settings.growthLimit ?? 2, "above 1") { $0 > 1 }
  }

  public mutating func update(
    _ parameters: inout [Tensor], gradients: [Tensor], learningRate: Float, in context: ExecutionContext
  ) throws {
    try check(parameters, gradients, learningRate: learningRate, known: moments.first?.map(\.shape), in: context)
    if moments.isEmpty {
      moments = Self.names.map { _ in parameters.map { Tensor(zerosLike: $0) } }
      start = parameters
    }
    // Without a step nothing is learnt about the distance.
    guard learningRate > 0 else { return }
    let length = estimate * Double(learningRate) * biasCorrection
    let agreement = progress(parameters, gradients, in: context)
    takeIn(gradients, parameters, length: length, in: context)
    let norm = Tensor.sum(over: [moments[2]], in: context) { run in
      let s = run.source(0)
      return (0..<run.count).reduce(0) { $0 + Double(abs(s[$1])) }
    }
    // All gradients have been zero.
    guard norm > 0 else { return }
    let before = estimate
    renewEstimate(agreement: agreement * length, norm: norm)
    // Without an average of gradients, prodigyopt moves by the new d times g, which m has with the old one.
    move(&parameters, length: length * (settings.beta1 == 0 ? estimate / before : 1), decay: length, in: context)
    steps += 1
  }

  private var beta3: Double { settings.beta3 ?? settings.beta2.squareRoot() }

  private var biasCorrection: Double {
    guard settings.correctsBias else { return 1 }
    let t = Double(steps + 1)
    return (1 - pow(settings.beta2, t)).squareRoot() / (1 - pow(settings.beta1, t))
  }

  /// What of λ θ is added to the gradients.
  private var coupledDecay: Float { settings.decouples ? 0 : Float(settings.weightDecay) }

  /// ⟨g, θ₀ − θ⟩.
  private func progress(_ parameters: [Tensor], _ gradients: [Tensor], in context: ExecutionContext) -> Double {
    let decay = coupledDecay
    return Tensor.sum(over: [gradients, parameters, start], in: context) { run in
      let (gradient, parameter, start) = (run.source(0), run.source(1), run.source(2))
      return (0..<run.count).reduce(0.0) { sum, i in
        sum + Double(gradient[i] + decay * parameter[i]) * Double(start[i] - parameter[i])
      }
    }
  }

  /// Renews m, v and s.
  private mutating func takeIn(_ gradients: [Tensor], _ parameters: [Tensor], length: Double, in context: ExecutionContext) {
    let d = estimate, decay = coupledDecay
    let (firstKept, firstGain) = (Float(settings.beta1), Float(d * (1 - settings.beta1)))
    let (secondKept, secondGain) = (Float(settings.beta2), Float(d * d * (1 - settings.beta2)))
    let (sumKept, sumGain) = (Float(beta3), Float(d / settings.firstEstimate * (settings.safeguardsWarmup ? d : length)))
    var first = moments.removeFirst()
    Tensor.update(&first, beside: &moments, reading: [gradients, parameters], in: context) { run in
      let (m, v, s) = (run.target(0), run.target(1), run.target(2)), (gradient, parameter) = (run.source(0), run.source(1))
      for i in 0..<run.count {
        let g = gradient[i] + decay * parameter[i]
        m[i] = m[i] * firstKept + firstGain * g
        v[i] = v[i] * secondKept + secondGain * g * g
        s[i] = s[i] * sumKept + sumGain * g
      }
    }
    moments.insert(first, at: 0)
  }

  private mutating func renewEstimate(agreement: Double, norm: Double) {
    numerator = numerator * beta3 + estimate / settings.firstEstimate * agreement
    let found = settings.coefficient * numerator / norm
    if estimate == settings.firstEstimate { estimate = max(estimate, found) }
    largest = max(largest, found)
    estimate = min(largest, settings.growthLimit.map { estimate * $0 } ?? .infinity)
  }

  private func move(_ parameters: inout [Tensor], length: Double, decay: Double, in context: ExecutionContext) {
    let step = Float(length), epsilon = Float(estimate * settings.epsilon)
    let lost = settings.decouples ? Float(settings.weightDecay * decay) : 0
    Tensor.update(&parameters, reading: [moments[0], moments[1]], in: context) { run in
      let (parameter, m, v) = (run.target(0), run.source(0), run.source(1))
      for i in 0..<run.count {
        let kept = parameter[i] - parameter[i] * lost
        parameter[i] = kept - step * m[i] / (v[i].squareRoot() + epsilon)
      }
    }
  }

  public var state: OptimizerState {
    OptimizerState(
      optimizer: "Prodigy", numbers: ["k": Double(steps), "d": estimate, "d_max": largest, "d_numerator": numerator],
      names: Self.names + [Self.startName], lists: moments.isEmpty ? [] : moments + [start])
  }

  public mutating func restore(_ state: OptimizerState, for parameters: [Tensor]) throws(TrainingError) {
    try state.check(optimizer: "Prodigy")
    let steps = try state.count("k")
    let (d, largest) = (try state.number("d") { $0 > 0 }, try state.number("d_max") { $0 > 0 })
    let numerator = try state.number("d_numerator")
    let lists = try state.lists(Self.names + [Self.startName], for: parameters)
    (self.steps, estimate, self.largest, self.numerator) = (steps, d, largest, numerator)
    (moments, start) = (Array(lists.dropLast()), lists.last ?? [])
  }
}
