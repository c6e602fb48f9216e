import Foundation
import LatentDiffusionMPI
import LatentDiffusionTraining

/// A run from its first or last state to its result: shows progress, keeps states, logs, and draws samples.
struct LoggedTraining<Objective: TrainingObjective> {
  let options: RunOptions
  /// The processes that train together, of which the first one writes; nil: this one alone.
  let company: MPIExchange?
  /// What distinguishes the run from others.
  let traits: [String: String]
  /// The names of the parts that the loss has.
  let parts: [String]
  let progress: Progress
  /// Draws pictures with what is trained after a step; nil: nobody wants any.
  var samples: (every: Int, draw: (_ step: Int, _ trained: any Trainable) async throws -> Void)?

  /// - Parameters:
  ///   - begin: makes the trainer, which nobody else holds: its first values would stay in memory.
  ///   - write: writes the result, and returns what it is called.
  func run(
    from begin: () throws -> Trainer<Objective>, in context: ExecutionContext, _ write: (any Trainable) throws -> String
  ) async throws {
    let (run, first) = try begun(begin, in: context)
    guard company?.isFirst ?? true else { return try await follow(run) }
    let columns = ["loss"] + parts + ["learning_rate", "gradient_norm"]
    let log = try options.log.map { try LossLog(at: URL(filePath: $0), columns: columns, after: first) }
    let meter = TrainingMeter(first, progress, every: options.reportEvery)
    var (saved, savedAt) = (first, ContinuousClock.now)
    do {
      while let step = try await run.next() {
        meter.show(step)
        try log?.append(step: step.number, [step.loss] + parts.map { step.parts[$0] } + [Double(step.learningRate), step.gradientNorm])
        if step.number.isMultiple(of: options.saveEvery) || ContinuousClock.now - savedAt > .seconds(300) || step.number == step.count {
          try save(run.trainer)
          (saved, savedAt) = (step.number, .now)
        }
        if let samples, step.number.isMultiple(of: samples.every) || step.number == step.count {
          progress.begin("Drawing samples")
          try await samples.draw(step.number, run.trainer.result)
        }
      }
    } catch is CancellationError {
      if run.trainer.steps > saved { try save(run.trainer) }
      throw stopped(run.trainer.steps)
    } catch let error as TrainingError {
      progress.clear()
      throw Failure("\(error)" + (saved > 0 ? " The state after step \(saved) is kept in \(options.stateURL.relativePath)." : ""))
    }
    progress.begin("Writing \(options.output)")
    let name = try Signals.whole { try write(run.trainer.result) }
    let drawing = try log.map { try self.plot($0) }
    company?.finish()
    progress.end("\(name) after \(run.trainer.steps) steps\(drawing.map { ", the loss in \($0)" } ?? "")")
  }

  /// The run from its beginning or its last state, and the steps that are behind it.
  private func begun(
    _ begin: () throws -> Trainer<Objective>, in context: ExecutionContext
  ) throws -> (run: TrainingRun<Objective>, first: Int) {
    var trainer = try begin()
    let values = trainer.trained.values
    progress.tell("\(values.reduce(0) { $0 + $1.count }) numbers are trained, in \(values.count) tensors")
    try resume(&trainer)
    return (trainer.steps(in: context), trainer.steps)
  }

  /// The steps of a process that writes nothing.
  private func follow(_ run: TrainingRun<Objective>) async throws {
    while try await run.next() != nil {}
    company?.finish()
  }

  private func resume(_ trainer: inout Trainer<Objective>) throws {
    guard options.resume else { return }
    let url = options.stateURL
    guard FileManager.default.fileExists(atPath: url.path(percentEncoded: false)) else {
      return progress.tell("There is no state in \(url.relativePath) yet, so the run begins.")
    }
    try trainer.restore(TrainingState(contentsOf: url, for: trainer.subject(traits)))
    progress.tell("Going on after step \(trainer.steps), from \(url.relativePath)")
  }

  private func save(_ trainer: Trainer<Objective>) throws {
    try Signals.whole { try trainer.state(traits).write(to: options.stateURL) }
  }

  private func stopped(_ steps: Int) -> any Error {
    progress.clear()
    progress.tell("Saved after step \(steps). The same command with --resume goes on.")
    return CancellationError()
  }

  /// Draws how the loss fell.
  private func plot(_ log: LossLog) throws -> String {
    let rows = try LossLog.read(log.url).rows
    let points = rows.compactMap { row in row.values.first.flatMap(\.self).map { (step: row.step, loss: $0) } }
    let url = log.url.deletingPathExtension().appendingPathExtension("svg")
    let plot = LossPlot(title: "Loss of \(URL(filePath: options.output).lastPathComponent)", points: points, smoothing: 0.95)
    try Signals.whole { try Data(plot.svg.utf8).writeBesideThenRename(to: url) }
    return url.relativePath
  }
}

/// Shows how a run goes: on a terminal in place, elsewhere a line now and then.
final class TrainingMeter {
  private let progress: Progress, every: Int, first: Int
  private let start = ContinuousClock.now
  private var smoothed: (sum: Double, weight: Double) = (0, 0)

  init(_ first: Int, _ progress: Progress, every: Int) { (self.first, self.progress, self.every) = (first, progress, every) }

  func show(_ step: TrainingStep) {
    // The exponential mean of the losses, without a bias at first.
    smoothed = (0.95 * smoothed.sum + 0.05 * step.loss, 0.95 * smoothed.weight + 0.05)
    let rate = Double(step.number - first) / max((ContinuousClock.now - start) / .seconds(1), 1e-9)
    let speed = rate >= 1 ? String(format: "%.1f steps/s", rate) : String(format: "%.1f s/step", 1 / max(rate, 1e-9))
    let loss = String(format: "loss %.4g", smoothed.sum / smoothed.weight)
    let memory = String(format: "peak %.2f GB", Double(peakResidentBytes()) / 1e9)
    progress.training(
      step.number, of: step.count, "\(loss), \(speed)", memory, secondsLeft: Double(step.count - step.number) / max(rate, 1e-9),
      isLine: step.number.isMultiple(of: every) || step.number == step.count || step.number == first + 1)
  }
}
