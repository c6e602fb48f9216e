import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import Tensor
import Testing

/// Against PyTorch's `AdamW`, transformers' `Adafactor` and `prodigyopt`: twenty steps of the problem in `make_optimizers.py`.
@Suite struct OptimizerTests {
  struct Case: Decodable {
    let optimizer: String?
    let settings: Settings?
    let rates: [Float]?
    let estimates: [Double]?
  }

  /// The settings as Python names them.
  struct Settings: Decodable {
    let betas: [Double]?
    let beta1, beta3, eps, weight_decay, clip_threshold, decay_rate, d0, d_coef, growth_rate: Double?
    let scale_parameter, relative_step, warmup_init, decouple, use_bias_correction, safeguard_warmup: Bool?

    func optimizer(_ name: String) throws -> any Optimizer {
      let betas = (betas?[0] ?? 0.9, betas?[1] ?? 0.999)
      switch name {
      case "AdamW": return try AdamW(betas: betas, epsilon: eps ?? 1e-8, weightDecay: weight_decay ?? 0.01)
      case "Adafactor":
        return try Adafactor(
          steps: relative_step ?? true ? .relative(warmup: warmup_init ?? false) : .given, scalesByParameter: scale_parameter ?? true,
          clipThreshold: clip_threshold ?? 1, decayRate: decay_rate ?? -0.8, beta1: beta1, weightDecay: weight_decay ?? 0)
      default:
        var settings = Prodigy.Settings()
        (settings.beta1, settings.beta2, settings.beta3) = (betas.0, betas.1, beta3)
        settings.weightDecay = weight_decay ?? 0
        settings.decouples = decouple ?? true
        settings.correctsBias = use_bias_correction ?? false
        settings.safeguardsWarmup = safeguard_warmup ?? false
        settings.firstEstimate = d0 ?? 1e-6
        settings.coefficient = d_coef ?? 1
        settings.growthLimit = growth_rate
        return try Prodigy(settings)
      }
    }
  }

  private static let names = ["vector", "matrix", "zeros", "kernel"]
  private static func cases() throws -> [ReferenceCase<Case>] { try Array(ReferenceCases("training/optimizers.safetensors")) }

  private struct Problem {
    let reference: ReferenceCase<Case>
    let names = OptimizerTests.names

    func start() throws -> [Tensor] { try names.map { try reference["start.\($0)"] } }
    func gradients(_ parameters: [Tensor], step: Int) throws -> [Tensor] {
      try zip(names, parameters).map { name, parameter in
        try 0.7 * (parameter - reference["goal.\(name)"]) + reference["noise\(step).\(name)"]
      }
    }
  }

  private static func problem() throws -> Problem { Problem(reference: try #require(try cases().first { $0.name == "problem" })) }

  /// Errors are relative to the largest element of each parameter. Prodigy's first estimates come from differences of parameters that have
  /// hardly moved, where one rounding is a large part, so estimates may differ by more.
  @Test func stepsAreTheReferences() throws {
    let context = ExecutionContext(threads: 2), problem = try Self.problem()
    var compared = 0
    for item in try Self.cases() where item.name != "problem" {
      let (name, settings) = (try #require(item.parameters.optimizer), try #require(item.parameters.settings))
      var optimizer = try settings.optimizer(name), parameters = try problem.start(), worst: Float = 0, worstEstimate = 0.0
      for (step, rate) in try #require(item.parameters.rates).enumerated() {
        try optimizer.update(&parameters, gradients: problem.gradients(parameters, step: step), learningRate: rate, in: context)
        if let expected = item.parameters.estimates?[step], let prodigy = optimizer as? Prodigy {
          worstEstimate = max(worstEstimate, abs(prodigy.stepSize - expected) / expected)
        }
        for (parameter, name) in zip(parameters, Self.names) {
          guard let expected = try item.optional("step\(step + 1).\(name)") else { continue }
          worst = max(worst, expectClose(parameter, expected, tolerance: 1e-5, "\(item.name), step \(step + 1), \(name)").error)
          compared += 1
        }
      }
      #expect(worstEstimate < 1e-4, "\(item.name): Prodigy's estimate")
      print("\(item.name): parameters differ by \(worst)\(worstEstimate > 0 ? ", estimates by \(worstEstimate)" : "") at most")
    }
    #expect(compared == 12 * 4 * 4)
  }

  private static func all() throws -> [any Optimizer] {
    var estimating = Prodigy.Settings()
    (estimating.weightDecay, estimating.correctsBias, estimating.firstEstimate) = (0.01, true, 1e-3)
    return [
      try AdamW(), try Adafactor(beta1: 0.9, weightDecay: 0.1), try Adafactor(steps: .relative(warmup: true), scalesByParameter: true),
      try Prodigy(estimating),
    ]
  }

  /// Tensors of several runs, of one run, and of a few elements.
  private static let shapes: [Shape] = [[37, 700], [20_001], [3], [16, 8, 3, 3], [1, 1]]

  private static func tensors(seed: UInt64) -> [Tensor] {
    var numbers = Numbers(seed: seed)
    return shapes.map { numbers.tensor($0) }
  }

  private static func run(
    _ optimizer: inout any Optimizer, _ parameters: inout [Tensor], steps: Range<Int>, in context: ExecutionContext
  ) throws {
    for step in steps {
      let gradients = zip(parameters, Self.tensors(seed: UInt64(step) + 100)).map { 0.5 * $0 + 0.1 * $1 }
      try optimizer.update(&parameters, gradients: gradients, learningRate: 0.01, in: context)
    }
  }

  /// Whether all bytes are the same. (Lists are compared here and not by `#expect`, which would look for their differences for minutes.)
  private static func areSame(_ tensors: [Tensor], _ others: [Tensor]) -> Bool {
    tensors.map { $0.elements.map(\.bitPattern) } == others.map { $0.elements.map(\.bitPattern) }
  }

  @Test func anyNumberOfThreadsGivesTheSameBytes() throws {
    for optimizer in try Self.all() {
      let results = try [1, 2, 5].map { threads in
        var (own, parameters) = (optimizer, Self.tensors(seed: 1))
        try Self.run(&own, &parameters, steps: 0..<4, in: ExecutionContext(threads: threads))
        return parameters
      }
      #expect(Self.areSame(results[0], results[1]) && Self.areSame(results[1], results[2]), "\(type(of: optimizer))")
      #expect(!Self.areSame(results[0], Self.tensors(seed: 1)))
    }
  }

  /// A run that stops after some steps, and goes on from what it saved, ends with the bytes of one that did not stop.
  @Test func aRestoredOptimizerGoesOnWithTheSameBytes() throws {
    let context = ExecutionContext(threads: 2)
    for optimizer in try Self.all() {
      for stop in [0, 1, 3] {
        var (whole, expected) = (optimizer, Self.tensors(seed: 1))
        try Self.run(&whole, &expected, steps: 0..<5, in: context)
        var (first, parameters) = (optimizer, Self.tensors(seed: 1))
        try Self.run(&first, &parameters, steps: 0..<stop, in: context)
        var second = optimizer
        try second.restore(first.state, for: parameters)
        try Self.run(&second, &parameters, steps: stop..<5, in: context)
        #expect(Self.areSame(parameters, expected), "\(type(of: optimizer)) after \(stop)")
      }
    }
  }

  @Test func aCopyIsACheckpoint() throws {
    let context = ExecutionContext(threads: 1)
    for var optimizer in try Self.all() {
      var parameters = Self.tensors(seed: 1)
      try Self.run(&optimizer, &parameters, steps: 0..<2, in: context)
      var (copy, copied) = (optimizer, parameters)
      try Self.run(&optimizer, &parameters, steps: 2..<4, in: context)
      #expect(!Self.areSame(copied, parameters))
      try Self.run(&copy, &copied, steps: 2..<4, in: context)
      #expect(Self.areSame(copied, parameters), "\(type(of: optimizer))")
    }
  }

  /// What nobody else holds is updated in its own memory; what somebody holds is left to him.
  @Test func parametersKeepTheirMemory() throws {
    var optimizer = try AdamW(), parameters = Self.tensors(seed: 1)
    let held = parameters[2], before = held.elements, ids = parameters.map(\.id)
    try optimizer.update(&parameters, gradients: Self.tensors(seed: 2), learningRate: 0.1, in: ExecutionContext(threads: 1))
    #expect(parameters.map(\.id).enumerated().filter { $0.element != ids[$0.offset] }.map(\.offset) == [2])
    #expect(held.elements == before && parameters[2].elements != before)
  }

  @Test func badArgumentsAreSentencesAndChangeNothing() throws {
    let context = ExecutionContext(threads: 1)
    let (parameters, gradients) = (Self.tensors(seed: 1), Self.tensors(seed: 2))
    for optimizer in try Self.all() {
      func expect(_ error: TrainingError, _ parameters: [Tensor], _ gradients: [Tensor], rate: Float = 0.1) throws {
        var (own, changed) = (optimizer, parameters)
        #expect(throws: error) { try own.update(&changed, gradients: gradients, learningRate: rate, in: context) }
        #expect(Self.areSame(changed, parameters) && own.state.tensors.isEmpty)
        #expect(error.description.hasSuffix(".") && !error.description.contains("\n"))
      }
      try expect(.noParameters, [], [])
      try expect(.wrongCount(of: "gradients", expected: 5, found: 4), parameters, Array(gradients.dropLast()))
      try expect(
        .wrongShape(of: "The gradient of parameter 1", expected: [20_001], found: [3]), parameters,
        [gradients[0], gradients[2], gradients[2], gradients[3], gradients[4]])
      try expect(.unusableLearningRate(-1e-3), parameters, gradients, rate: -1e-3)
      try expect(.unusableLearningRate(1e9), parameters, gradients, rate: 1e9)
      var (own, changed) = (optimizer, parameters)
      #expect(throws: TrainingError.self) { try own.update(&changed, gradients: gradients, learningRate: .nan, in: context) }
      for wrong in [Float.nan, .infinity, 1e30] {
        var poisoned = gradients[1].elements
        poisoned[12_345] = wrong
        try expect(
          .gradientNotFinite(parameter: 1), parameters, [gradients[0], Tensor(poisoned), gradients[2], gradients[3], gradients[4]])
      }
      // Parameters of another run after a step.
      try own.update(&changed, gradients: gradients, learningRate: 0.1, in: context)
      var other = Array(changed.dropLast())
      #expect(throws: TrainingError.wrongCount(of: "remembered parameters", expected: 4, found: 5)) {
        try own.update(&other, gradients: Array(gradients.dropLast()), learningRate: 0.1, in: context)
      }
      var reshaped = changed.map { $0.reshaped([$0.count]) }
      #expect(throws: TrainingError.wrongShape(of: "Parameter 0", expected: [37, 700], found: [25_900])) {
        try own.update(&reshaped, gradients: gradients.map { $0.reshaped([$0.count]) }, learningRate: 0.1, in: context)
      }
    }
  }

  @Test func aCancelledStepChangesNothing() throws {
    for var optimizer in try Self.all() {
      let context = ExecutionContext(threads: 2)
      context.cancel()
      var parameters = Self.tensors(seed: 1)
      #expect(throws: CancellationError.self) {
        try optimizer.update(&parameters, gradients: Self.tensors(seed: 2), learningRate: 0.1, in: context)
      }
      #expect(Self.areSame(parameters, Self.tensors(seed: 1)) && optimizer.state.tensors.isEmpty)
    }
  }

  @Test func foreignStatesAreRefused() throws {
    let context = ExecutionContext(threads: 1)
    var states: [OptimizerState] = []
    for var optimizer in try Self.all() {
      var parameters = Self.tensors(seed: 1)
      try Self.run(&optimizer, &parameters, steps: 0..<1, in: context)
      states.append(optimizer.state)
    }
    let parameters = Self.tensors(seed: 1)
    for (place, optimizer) in try Self.all().enumerated() {
      var own = optimizer
      for (other, state) in states.enumerated() where other != place {
        #expect(throws: TrainingError.self, "\(type(of: optimizer)) takes the state \(other)") { try own.restore(state, for: parameters) }
      }
      let state = states[place]
      let damaged = [
        OptimizerState(optimizer: state.optimizer, numbers: [:], tensors: state.tensors),
        OptimizerState(optimizer: state.optimizer, numbers: state.numbers.mapValues { _ in .nan }, tensors: state.tensors),
        OptimizerState(optimizer: state.optimizer, numbers: state.numbers.mapValues { _ in -1.5 }, tensors: state.tensors),
        OptimizerState(optimizer: state.optimizer, numbers: state.numbers, tensors: Array(state.tensors.dropLast())),
        OptimizerState(
          optimizer: state.optimizer, numbers: state.numbers, tensors: state.tensors.map { $0.merging(["more": Tensor([1])]) { $1 } }),
        OptimizerState(
          optimizer: state.optimizer, numbers: state.numbers, tensors: state.tensors.map { $0.mapValues { _ in Tensor([1]) } }),
      ]
      for (number, state) in damaged.enumerated() {
        #expect(throws: TrainingError.self, "\(state.optimizer), \(number)") { try own.restore(state, for: parameters) }
      }
      #expect(own.state.tensors.isEmpty)
    }
  }

  @Test func impossibleSettingsAreRefused() throws {
    for wrong in [-0.1, 1, .nan, .infinity] {
      #expect(throws: TrainingError.self) { try AdamW(betas: (wrong, 0.999)) }
      #expect(throws: TrainingError.self) { try AdamW(betas: (0.9, wrong)) }
      #expect(throws: TrainingError.self) { try Adafactor(beta1: wrong) }
    }
    for wrong in [0, -1, .nan, .infinity] {
      #expect(throws: TrainingError.self) { try AdamW(epsilon: wrong) }
      #expect(throws: TrainingError.self) { try Adafactor(epsilons: (wrong, 1e-3)) }
      #expect(throws: TrainingError.self) { try Adafactor(clipThreshold: wrong) }
      var settings = Prodigy.Settings()
      settings.firstEstimate = wrong
      #expect(throws: TrainingError.self) { try Prodigy(settings) }
    }
    #expect(throws: TrainingError.self) { try AdamW(weightDecay: -1) }
    #expect(throws: TrainingError.self) { try Adafactor(decayRate: 0) }
    var settings = Prodigy.Settings()
    settings.growthLimit = 1
    #expect(throws: TrainingError.self) { try Prodigy(settings) }
  }
}
