import Tensor

/// Adam with decoupled weight decay.
///
/// θ ← θ − η λ θ; m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; θ ← θ − η m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ).
///
/// Source: Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv 1711.05101; PyTorch's `AdamW`.
public struct AdamW: Optimizer {
  private let beta1: Double, beta2: Double, epsilon: Double, weightDecay: Double
  private var steps = 0
  /// m of every parameter, and v of every parameter.
  private var moments: [[Tensor]] = []

  private static let names = ["exp_avg", "exp_avg_sq"]

  public var rememberedCopies: Int { 2 }

  public var usualLearningRate: Float { 1e-4 }

  /// - Parameters:
  ///   - betas: β₁ and β₂, how much the averages of gradients and of their squares keep at a step; from 0 to below 1.
  ///   - epsilon: ε, above 0.
  ///   - weightDecay: λ, from 0 up.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(betas: (Double, Double) = (0.9, 0.999), epsilon: Double = 1e-8, weightDecay: Double = 0.01) throws(TrainingError) {
    (beta1, beta2, self.epsilon, self.weightDecay) = (betas.0, betas.1, epsilon, weightDecay)
    try TrainingError.check("beta1", beta1, "from 0 to below 1") { 0..<1 ~= $0 }
    try TrainingError.check("beta2", beta2, "from 0 to below 1") { 0..<1 ~= $0 }
    try TrainingError.check("epsilon", epsilon, "above 0") { $0 > 0 }
    try TrainingError.check("the weight decay", weightDecay, "0 or more") { $0 >= 0 }
  }

  public mutating func update(
    _ parameters: inout [Tensor], gradients: [Tensor], learningRate: Float, in context: ExecutionContext
  ) throws {
    try check(parameters, gradients, learningRate: learningRate, known: moments.first?.map(\.shape), in: context)
    if moments.isEmpty { moments = Self.names.map { _ in parameters.map { Tensor(zerosLike: $0) } } }
    steps += 1
    let step = AdamStep(
      rate: Double(learningRate), decay: weightDecay, betas: (beta1, beta2), epsilon: epsilon, number: steps)
    Tensor.update(&parameters, beside: &moments, reading: [gradients], in: context) { step($0) }
  }

  public var state: OptimizerState {
    OptimizerState(optimizer: "AdamW", numbers: ["step": Double(steps)], names: Self.names, lists: moments)
  }

  public mutating func restore(_ state: OptimizerState, for parameters: [Tensor]) throws(TrainingError) {
    try state.check(optimizer: "AdamW")
    (steps, moments) = (try state.count("step"), try state.lists(Self.names, for: parameters))
  }
}
