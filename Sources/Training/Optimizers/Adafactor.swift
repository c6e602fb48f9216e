import Foundation
import Tensor

/// Adam's squares of gradients kept as a mean for each row and each column of a matrix, which takes hardly any memory beside the parameters.
///
/// R ← β R + (1 − β) mean over columns of (g² + ε₁), C likewise over rows, with β = 1 − t^decayRate; v = R C / mean(R); u = g / √v, divided by
/// max(1, rms(u) / clipThreshold); θ ← θ − η λ θ − η u. Tensors with more axes are matrices of their last two. Vectors keep all of v.
///
/// Source: Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", arXiv 1804.04235; transformers' `Adafactor`.
public struct Adafactor: Optimizer {
  /// How long steps are.
  public enum Steps: Sendable, Equatable {
    /// η is the learning rate.
    case given
    /// η is the learning rate times min(1e-2, 1/√t), or with `warmup` times min(1e-6 t, 1/√t). Transformers' `relative_step` is this with a
    /// learning rate of 1.
    case relative(warmup: Bool)
  }

  private let steps: Steps, scalesByParameter: Bool, epsilons: (Double, Double), clipThreshold: Double
  private let decayRate: Double, beta1: Double?, weightDecay: Double
  private var taken = 0
  /// For each parameter what is remembered of it.
  private var moments: [[String: Tensor]] = []
  /// The shapes of the parameters.
  private var shapes: [Shape] = []

  private static let (first, row, column, whole) = ("exp_avg", "exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq")

  public var rememberedCopies: Int { beta1 == nil ? 0 : 1 }

  public var usualLearningRate: Float { steps == .given ? 1e-4 : 1 }

  /// - Parameters:
  ///   - steps: how long steps are (`relative_step`, `warmup_init`).
  ///   - scalesByParameter: whether η is multiplied by the root mean square of the parameter, at least ε₂ (`scale_parameter`).
  ///   - epsilons: ε₁, added to squares, and ε₂; above 0.
  ///   - clipThreshold: the largest root mean square of u, above 0.
  ///   - decayRate: how β grows, from -1 to below 0.
  ///   - beta1: how much an average of η u keeps at a step, from 0 to below 1; nil for no average, which saves its memory.
  ///   - weightDecay: λ, from 0 up.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(
    steps: Steps = .given, scalesByParameter: Bool = false, epsilons: (Double, Double) = (1e-30, 1e-3), clipThreshold: Double = 1,
    decayRate: Double = -0.8, beta1: Double? = nil, weightDecay: Double = 0
  ) throws(TrainingError) {
    (self.steps, self.scalesByParameter, self.epsilons, self.clipThreshold) = (steps, scalesByParameter, epsilons, clipThreshold)
    (self.decayRate, self.beta1, self.weightDecay) = (decayRate, beta1, weightDecay)
    try TrainingError.check("epsilon 1", epsilons.0, "above 0 in single precision") { Float($0) > 0 }
    try TrainingError.check("epsilon 2", epsilons.1, "above 0") { $0 > 0 }
    try TrainingError.check("the clipping threshold", clipThreshold, "above 0") { $0 > 0 }
    try TrainingError.check("the decay rate", decayRate, "from -1 to below 0") { -1..<0 ~= $0 }
    try TrainingError.check("beta1", beta1 ?? 0, "from 0 to below 1") { 0..<1 ~= $0 }
    try TrainingError.check("the weight decay", weightDecay, "0 or more") { $0 >= 0 }
  }

  public mutating func update(
    _ parameters: inout [Tensor], gradients: [Tensor], learningRate: Float, in context: ExecutionContext
  ) throws {
    try check(parameters, gradients, learningRate: learningRate, known: moments.isEmpty ? nil : shapes, in: context)
    if moments.isEmpty {
      shapes = parameters.map(\.shape)
      moments = shapes.map { shape in
        Dictionary(uniqueKeysWithValues: names(shape).map { ($0, Tensor(shape: Self.shape($0, shape))) })
      }
    }
    taken += 1
    for place in parameters.indices where parameters[place].count > 0 {
      update(&parameters[place], at: place, gradient: gradients[place], rate: Double(learningRate), in: context)
    }
  }

  private mutating func update(
    _ parameter: inout Tensor, at place: Int, gradient: Tensor, rate: Double, in context: ExecutionContext
  ) {
    let rate = rate * stepSize * (scalesByParameter ? max(epsilons.1, parameter.rootMeanSquare(in: context)) : 1)
    var change = direction(of: gradient, at: place, in: context)
    let scale = Float(rate / max(1, change.rootMeanSquare(in: context) / clipThreshold))
    if let beta1, var average = moments[place].removeValue(forKey: Self.first) {
      let (kept, gain) = (Float(beta1), Float(1 - beta1) * scale)
      average.update(reading: [change], in: context) { run in
        let (average, change) = (run.target(0), run.source(0))
        for i in 0..<run.count { average[i] = average[i] * kept + change[i] * gain }
      }
      moments[place][Self.first] = average
      change = average
    }
    let length = beta1 == nil ? scale : 1, lost = Float(weightDecay * rate)
    parameter.update(reading: [change], in: context) { run in
      let (parameter, change) = (run.target(0), run.source(0))
      for i in 0..<run.count { parameter[i] -= parameter[i] * lost + change[i] * length }
    }
  }

  /// What the learning rate is multiplied by.
  private var stepSize: Double {
    let t = Double(taken)
    return switch steps {
    case .given: 1
    case .relative(let warmup): min(warmup ? 1e-6 * t : 1e-2, 1 / t.squareRoot())
    }
  }

  /// u = g / √v, after the averages have taken in g².
  private mutating func direction(of gradient: Tensor, at place: Int, in context: ExecutionContext) -> Tensor {
    let beta = 1 - pow(Double(taken), decayRate), epsilon = Float(epsilons.0)
    let (kept, gain) = (Float(beta), Float(1 - beta))
    func average(_ name: String, _ new: Tensor) -> Tensor? {
      moments[place][name]?.update(reading: [new], in: context) { run in
        let (average, new) = (run.target(0), run.source(0))
        for i in 0..<run.count { average[i] = average[i] * kept + new[i] * gain }
      }
      return moments[place][name]
    }
    var squares = gradient
    squares.update(in: context) { run in
      let square = run.target(0)
      for i in 0..<run.count { square[i] = square[i] * square[i] + epsilon }
    }
    var change = gradient
    if gradient.shape.rank < 2 {
      guard let whole = average(Self.whole, squares) else { return change }
      change.update(reading: [whole], in: context) { run in
        let (change, square) = (run.target(0), run.source(0))
        for i in 0..<run.count { change[i] /= square[i].squareRoot() }
      }
      return change
    }
    guard let rows = average(Self.row, squares.mean(axis: -1, in: context)),
      let columns = average(Self.column, squares.mean(axis: -2, in: context))
    else { return change }
    change.divideByRoots(of: rows, rows.mean(axis: -1, in: context), columns, in: context)
    return change
  }

  /// What is remembered of a parameter.
  private func names(_ shape: Shape) -> [String] {
    (beta1 == nil ? [] : [Self.first]) + (shape.rank < 2 ? [Self.whole] : [Self.row, Self.column])
  }

  private static func shape(_ name: String, _ parameter: Shape) -> Shape {
    switch name {
    case row: Shape(Array(parameter.dimensions.dropLast()))
    case column: Shape(parameter.dimensions.dropLast(2) + parameter.dimensions.suffix(1))
    default: parameter
    }
  }

  public var state: OptimizerState { OptimizerState(optimizer: "Adafactor", numbers: ["step": Double(taken)], tensors: moments) }

  public mutating func restore(_ state: OptimizerState, for parameters: [Tensor]) throws(TrainingError) {
    try state.check(optimizer: "Adafactor")
    let steps = try state.count("step")
    try state.check(parameters, names: names, shape: Self.shape)
    (taken, moments, shapes) = (steps, state.tensors, parameters.map(\.shape))
  }
}

extension Tensor {
  fileprivate func rootMeanSquare(in context: ExecutionContext) -> Double {
    (Tensor.sumOfSquares([self], in: context) / Double(max(count, 1))).squareRoot()
  }

  /// Divides the elements of matrices `[…, R, C]` by √(rows · columns / mean).
  /// - Parameters:
  ///   - rows: `[…, R]`.
  ///   - mean: `[…]`, that of the rows.
  ///   - columns: `[…, C]`.
  fileprivate mutating func divideByRoots(of rows: Tensor, _ mean: Tensor, _ columns: Tensor, in context: ExecutionContext) {
    let (height, width) = (shape[-2], shape[-1])
    let means = mean.elements, columnFactors = columns.elements.map { 1 / $0.squareRoot() }
    let rowFactors = rows.elements.enumerated().map { index, row in 1 / (row / means[index / height]).squareRoot() }
    update(rowLength: width, in: context) { run in
      let place = run.target(0)
      for row in 0..<run.count / width {
        let index = run.begin / width + row, factor = rowFactors[index], first = index / height * width
        for column in 0..<width { place[row * width + column] *= factor * columnFactors[first + column] }
      }
    }
  }
}
