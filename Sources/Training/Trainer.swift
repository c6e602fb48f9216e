import LatentDiffusionTrainingData
import Tensor

/// Teaches a model: takes batches of a dataset, lets the model answer, follows the loss back, and updates what is trained.
///
/// A value: a copy goes on from the same place. It is composed of parts, of which each can be another: the dataset, the objective, what is trained, the
/// optimiser.
///
/// ```swift
/// var trainer = try Trainer(
///   NoisePrediction(by: unet, objective: objective), on: data, training: parameters, by: AdamW(),
///   schedule: LearningRateSchedule(rate: 1e-4, steps: 1000), seed: 0)
/// for try await step in trainer.steps() { print(step.number, step.loss) }
/// ```
public struct Trainer<Objective: TrainingObjective>: Sendable {
  /// What is left as it is in most runs.
  public struct Settings: Sendable {
    /// How many batches make a step: their gradients are averaged.
    public var batches = 1
    /// Of the gradients' norm; nil for none.
    public var clipping: GradientClipping?
    /// Whether layers are computed again on the way back, which takes less memory and about a third more time.
    public var recomputes = false
    /// How an average of all steps' parameters is kept; nil: there is none.
    public var average: ExponentialMovingAverage.Decay?
    /// Which batches this machine takes of those that several take together.
    public var share = BatchShare.all
    /// Averages the loss and the gradients over the machines that share the batches; nil where there is one.
    public var exchange: (any GradientExchange)?

    /// One batch a step, on one machine, without clipping and average.
    public init() {}
  }

  private let objective: Objective
  private var dataset: any TrainingDataset<Objective.Batch>
  private let schedule: LearningRateSchedule
  private let settings: Settings
  private let model = Adaptation.Model()
  /// Decides what is random.
  public let seed: UInt64
  /// What is trained, as it is now.
  public private(set) var trained: any Trainable
  /// What the next step depends on beside.
  public private(set) var optimizer: any Optimizer
  /// Of the parameters of all steps; nil if the run has none.
  public private(set) var average: ExponentialMovingAverage?
  /// The steps that have been taken.
  public private(set) var steps = 0

  /// - Parameters:
  ///   - objective: what the model learns.
  ///   - dataset: what it learns from.
  ///   - trained: of the model's parameters.
  ///   - optimizer: before its first step.
  ///   - schedule: the learning rate of each step, and how many there are.
  ///   - settings: what is left as it is in most runs.
  ///   - seed: decides what is random.
  /// - Throws: `TrainingError`.
  public init(
    _ objective: Objective, on dataset: any TrainingDataset<Objective.Batch>, training trained: any Trainable,
    by optimizer: any Optimizer, schedule: LearningRateSchedule, settings: Settings = Settings(), seed: UInt64
  ) throws(TrainingError) {
    guard !trained.values.isEmpty else { throw .noParameters }
    // The setting is checked where it is used at each step, too late for a person.
    _ = try GradientAccumulation(batches: settings.batches)
    (self.objective, self.dataset, self.trained, self.optimizer) = (objective, dataset, trained, optimizer)
    (self.schedule, self.settings, self.seed) = (schedule, settings, seed)
    average = try settings.average.map { decay throws(TrainingError) in try ExponentialMovingAverage(of: trained.values, decay: decay) }
  }

  /// The steps of the whole run.
  public var plannedSteps: Int { schedule.steps }

  /// The number of the next batch of this machine.
  private var nextBatch: Int { (steps * settings.share.count + settings.share.index) * settings.batches }

  /// Takes one step: the gradients of its batches are averaged, and everything that is trained is updated once.
  ///
  /// - Throws: `TrainingError`, `CancellationError`, what the dataset and the model throw. Nothing that counts has changed then.
  public mutating func step(in context: ExecutionContext) throws -> TrainingStep {
    var accumulation = try GradientAccumulation(batches: settings.batches)
    var (loss, parts, gradients) = (0.0, [String: Double](), [Tensor]())
    for number in nextBatch..<nextBatch + settings.batches {
      var generator = TorchGenerator(seed: seed, batch: number)
      let batch = try dataset.batch(number, drawing: &generator, in: context)
      let (answer, found) = try self.gradients(batch, in: context)
      loss += answer.loss / Double(settings.batches)
      parts.merge(answer.parts.mapValues { $0 / Double(settings.batches) }, uniquingKeysWith: +)
      gradients = try accumulation(found, in: context) ?? gradients
    }
    try settings.exchange?.average(&loss, &gradients)
    let norm = try settings.clipping.map { try $0(&gradients, in: context) }
    let rate = schedule.rate(at: steps)
    try optimizer.update(&trained.values, gradients: gradients, learningRate: rate, in: context)
    steps += 1
    try average?.update(with: trained.values, in: context)
    return TrainingStep(number: steps, count: schedule.steps, loss: loss, parts: parts, learningRate: rate, gradientNorm: norm)
  }

  private func gradients(
    _ batch: Objective.Batch, in context: ExecutionContext
  ) throws -> (answer: TrainingAnswer, gradients: [Tensor]) {
    let tape = GradientTape(), placed = try trained.placed(in: model, on: tape, in: context)
    var recording = context.recording(on: tape, recomputing: settings.recomputes)
    recording.adaptation = placed.adaptation
    let answer = try objective.answer(to: batch, in: recording)
    guard answer.loss.isFinite else { throw TrainingError.lossNotFinite }
    return (answer, placed.gradients(from: try tape.gradients(of: answer.gradients, in: context)))
  }

  /// What is trained, with the averages of all steps in place of the values of the last one, where averages are kept.
  public var result: any Trainable {
    guard let average else { return trained }
    var result = trained
    result.values = average.parameters
    return result
  }

  /// Everything that the run goes on from.
  /// - Parameter traits: what distinguishes the run, by a word that a message can use.
  public func state(_ traits: [String: String] = [:]) -> TrainingState {
    TrainingState(
      subject: subject(traits), parameters: trained.values, optimizer: optimizer.state, average: average, seed: seed, steps: steps)
  }

  /// What the run trains.
  /// - Parameter traits: what distinguishes the run, by a word that a message can use.
  public func subject(_ traits: [String: String] = [:]) -> TrainingSubject {
    TrainingSubject(traits: traits, parameters: zip(trained.names, trained.values).map { .init(name: $0, shape: $1.shape) })
  }

  /// Goes on from a state of the same run, with the same bytes as if it had not stopped.
  ///
  /// - Parameter state: as `state` gave it; its subject has been compared with this run's when it was read.
  /// - Throws: `TrainingError.foreignState` where it is a state of another run; nothing has changed then.
  public mutating func restore(_ state: TrainingState) throws(TrainingError) {
    guard state.parameters.map(\.shape) == trained.values.map(\.shape) else {
      throw .foreignState(optimizer: state.optimizer.optimizer, reason: "it is one of other parameters")
    }
    guard state.seed == seed, average?.decay == state.average?.decay else {
      throw .foreignState(optimizer: state.optimizer.optimizer, reason: "its seed or its average is another")
    }
    try optimizer.restore(state.optimizer, for: state.parameters)
    (trained.values, average, steps) = (state.parameters, state.average, state.steps)
  }
}

/// What a step came to.
public struct TrainingStep: Sendable {
  /// How many steps have been taken with it.
  public let number: Int
  /// How many steps the run has.
  public let count: Int
  /// The mean loss of the batches, before the update.
  public let loss: Double
  /// What the loss is a sum of, by name.
  public let parts: [String: Double]
  /// Of this step.
  public let learningRate: Float
  /// The norm of all gradients before they were clipped; nil without clipping.
  public let gradientNorm: Double?
}

/// What averages losses and gradients over machines that train together. All of them call it at the same steps.
public protocol GradientExchange: Sendable {
  /// Replaces the loss and the gradients of this machine by the means of all machines.
  func average(_ loss: inout Double, _ gradients: inout [Tensor]) throws
}
