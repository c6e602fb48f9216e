import Tensor

/// Makes better parameters out of parameters and the gradients of a loss. A value: a copy goes on from the same place.
///
/// Settings are checked by the initialiser, and arguments by `update` before anything changes.
public protocol Optimizer: Sendable {
  /// The learning rate that people use with it, for programs whose users name none.
  var usualLearningRate: Float { get }

  /// How many numbers it remembers of each number that is trained: for plans of memory.
  var rememberedCopies: Int { get }

  /// Takes one step. Either everything is updated or nothing is: a cancellation counts before the step, not inside.
  ///
  /// The results are the same bytes for any number of threads. A parameter whose memory nobody else holds is changed in place and keeps its `id`.
  /// - Parameters:
  ///   - parameters: what is trained, in the same order at every step. The shapes are those of the checkpoint.
  ///   - gradients: of the loss, with respect to each parameter, in its shape.
  ///   - learningRate: of this step, from 0 (as warm-ups begin) to `LearningRateSchedule.largestRate`.
  /// - Throws: `TrainingError`, `CancellationError`.
  mutating func update(_ parameters: inout [Tensor], gradients: [Tensor], learningRate: Float, in context: ExecutionContext) throws

  /// What the next step depends on beside the parameters and the settings.
  var state: OptimizerState { get }

  /// Goes on from a saved state with the same bytes.
  ///
  /// - Parameters:
  ///   - state: what `state` of an optimiser of this type and these settings was.
  ///   - parameters: what it was training then.
  /// - Throws: `TrainingError.foreignState`; the optimiser is unchanged then.
  mutating func restore(_ state: OptimizerState, for parameters: [Tensor]) throws(TrainingError)
}

/// What an optimiser remembers.
public struct OptimizerState: Sendable {
  /// The type of the optimiser, as PyTorch names it: `AdamW`.
  public let optimizer: String
  /// Numbers by name, all finite: how many steps were taken, estimates.
  public let numbers: [String: Double]
  /// For each parameter what is remembered of it, by PyTorch's names (`exp_avg`); empty before the first step.
  public let tensors: [[String: Tensor]]

  /// - Parameters:
  ///   - optimizer: the type of the optimiser.
  ///   - numbers: by name, all finite.
  ///   - tensors: for each parameter, by names without a dot.
  public init(optimizer: String, numbers: [String: Double], tensors: [[String: Tensor]]) {
    (self.optimizer, self.numbers, self.tensors) = (optimizer, numbers, tensors)
  }

  /// Of an optimiser that remembers the same tensors of every parameter.
  /// - Parameter lists: for each of `names` a tensor of each parameter; none before the first step.
  init(optimizer: String, numbers: [String: Double], names: [String], lists: [[Tensor]]) {
    let count = lists.first?.count ?? 0
    self.init(
      optimizer: optimizer, numbers: numbers,
      tensors: (0..<count).map { place in
        Dictionary(zip(names, lists.map { $0[place] })) { first, _ in first }
      })
  }

  /// The tensors as lists, in the order of the names; none before the first step.
  func lists(_ names: [String], for parameters: [Tensor]) throws(TrainingError) -> [[Tensor]] {
    try check(parameters) { _ in names }
    return tensors.isEmpty ? [] : names.map { name in tensors.compactMap { $0[name] } }
  }

  /// - Parameters:
  ///   - names: what must be remembered of a parameter of this shape.
  ///   - shape: of the tensor of that name.
  func check(
    _ parameters: [Tensor], names: (Shape) -> [String], shape: (_ name: String, _ parameter: Shape) -> Shape = { $1 }
  ) throws(TrainingError) {
    guard tensors.isEmpty || tensors.count == parameters.count else {
      throw foreign("it knows \(tensors.count) parameters, and there are \(parameters.count)")
    }
    for (place, (known, parameter)) in zip(tensors, parameters).enumerated() {
      let wanted = names(parameter.shape)
      guard Set(known.keys) == Set(wanted) else {
        throw foreign("it has \(known.keys.sorted()) of parameter \(place), and \(wanted.sorted()) are needed")
      }
      for (name, tensor) in known where tensor.shape != shape(name, parameter.shape) {
        throw foreign("\(name) of parameter \(place) has the shape \(tensor.shape), and \(shape(name, parameter.shape)) is needed")
      }
    }
  }

  /// - Throws: unless this is a state of that optimiser.
  func check(optimizer: String) throws(TrainingError) {
    guard self.optimizer == optimizer else {
      throw .foreignState(optimizer: optimizer, reason: "it is one of \(self.optimizer)")
    }
  }

  /// - Throws: unless the number is there and `isUsable`.
  func number(_ name: String, _ isUsable: (Double) -> Bool = { _ in true }) throws(TrainingError) -> Double {
    guard let number = numbers[name], number.isFinite, isUsable(number) else {
      throw foreign("its \(name) is \(numbers[name].map { "\($0)" } ?? "missing")")
    }
    return number
  }

  /// A number of steps.
  func count(_ name: String) throws(TrainingError) -> Int {
    Int(try number(name) { $0 >= 0 && $0 <= 0x1p53 && $0 == $0.rounded() })
  }

  private func foreign(_ reason: String) -> TrainingError { .foreignState(optimizer: optimizer, reason: reason) }
}

extension Optimizer {
  /// Checks the arguments of `update`.
  ///
  /// - Parameter known: the shapes of the parameters of the steps before; nil at the first.
  /// - Throws: `TrainingError`, `CancellationError`.
  func check(
    _ parameters: [Tensor], _ gradients: [Tensor], learningRate: Float, known: [Shape]?, in context: ExecutionContext
  ) throws {
    try context.checkCancellation()
    guard !parameters.isEmpty else { throw TrainingError.noParameters }
    guard gradients.count == parameters.count else {
      throw TrainingError.wrongCount(of: "gradients", expected: parameters.count, found: gradients.count)
    }
    guard learningRate >= 0, learningRate <= LearningRateSchedule.largestRate else {
      throw TrainingError.unusableLearningRate(learningRate)
    }
    for (place, (parameter, gradient)) in zip(parameters, gradients).enumerated() {
      try TrainingError.check("The gradient of parameter \(place)", gradient.shape, parameter.shape)
    }
    if let known {
      guard known.count == parameters.count else {
        throw TrainingError.wrongCount(of: "remembered parameters", expected: parameters.count, found: known.count)
      }
      for (place, (shape, parameter)) in zip(known, parameters).enumerated() {
        try TrainingError.check("Parameter \(place)", parameter.shape, shape)
      }
    }
    try checkSquares(of: gradients, in: context)
  }

  /// Throws where the square of a gradient's element is no number, because it would stay in the averages of squares for ever.
  private func checkSquares(of gradients: [Tensor], in context: ExecutionContext) throws(TrainingError) {
    func unusable(_ tensors: [Tensor]) -> Double {
      Tensor.sum(over: [tensors], in: context) { run in
        let gradient = run.source(0)
        var count = 0
        for index in 0..<run.count { count &+= (gradient[index] * gradient[index]).isFinite ? 0 : 1 }
        return Double(count)
      }
    }
    guard unusable(gradients) > 0 else { return }
    throw .gradientNotFinite(parameter: gradients.firstIndex { unusable([$0]) > 0 } ?? 0)
  }
}
