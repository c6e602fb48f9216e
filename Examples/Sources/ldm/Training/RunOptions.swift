import ArgumentParser
import Foundation
import LatentDiffusionMPI
import LatentDiffusionTraining

/// How an optimiser is called on the command line.
enum OptimizerKind: String, CaseIterable, ExpressibleByArgument {
  case adamw, adafactor, prodigy

  func make(weightDecay: Double?) throws -> any Optimizer {
    switch self {
    case .adamw: return try AdamW(weightDecay: weightDecay ?? 0.01)
    case .adafactor: return try Adafactor(weightDecay: weightDecay ?? 0)
    case .prodigy:
      var settings = Prodigy.Settings()
      settings.weightDecay = weightDecay ?? 0
      return try Prodigy(settings)
    }
  }
}

/// How the learning rate goes on after the warm-up.
enum DecayKind: String, CaseIterable, ExpressibleByArgument {
  case constant, linear, cosine

  var decay: LearningRateSchedule.Decay {
    switch self {
    case .constant: .constant
    case .linear: .linear
    case .cosine: .cosine
    }
  }
}

/// How a run goes, and what it leaves.
struct RunOptions: ParsableArguments {
  @Option(name: [.customShort("o"), .long], parsing: .unconditional, help: "Where the result goes.")
  var output: String

  @Option(parsing: .unconditional, help: "A JSON file with options; those on the command line count more.")
  var config: String?

  @Option(parsing: .unconditional, help: "Steps of the whole run.")
  var steps = 1000

  @Option(parsing: .unconditional, help: "Batches that make a step together.")
  var gradientAccumulation = 1

  @Option(parsing: .unconditional, help: "How far a step goes. Without it, what is usual for the optimiser.")
  var learningRate: Float?

  @Option(parsing: .unconditional, help: "Steps in which the learning rate grows from 0.")
  var warmupSteps = 0

  @Option(parsing: .unconditional, help: "How the learning rate goes on: \(DecayKind.allCases.map(\.rawValue).joined(separator: ", ")).")
  var schedule = DecayKind.constant

  @Option(
    parsing: .unconditional, help: "What makes steps of gradients: \(OptimizerKind.allCases.map(\.rawValue).joined(separator: ", ")).")
  var optimizer = OptimizerKind.adamw

  @Option(parsing: .unconditional, help: "How much parameters shrink. Without it, 0.01 with adamw and 0 with the others.")
  var weightDecay: Double?

  @Option(parsing: .unconditional, help: "The largest norm of the gradients; 0 for no limit.")
  var clipNorm = 1.0

  @Option(
    parsing: .unconditional,
    help: "Keep an average of all steps, which becomes the result: how much of it a step keeps at most, such as 0.999.")
  var ema: Double?

  @Option(parsing: .unconditional, help: "Decides everything that is random.")
  var seed: UInt64 = 0

  @Flag(help: "Compute layers again on the way back: less memory, and about a third more time.")
  var recompute = false

  @Option(parsing: .unconditional, help: "Where the state goes that a run goes on from. Without it, beside the result.")
  var state: String?

  @Flag(help: "Go on from the state.")
  var resume = false

  @Option(parsing: .unconditional, help: "Steps from one state to the next.")
  var saveEvery = 100

  @Option(parsing: .unconditional, help: "A CSV file with a line for each step. A drawing of the loss goes beside it, as SVG.")
  var log: String?

  @Option(parsing: .unconditional, help: "Steps from one line of progress to the next, where there is no terminal.")
  var reportEvery = 10

  func validate() throws {
    for (name, value) in [
      ("steps", steps), ("gradient-accumulation", gradientAccumulation), ("save-every", saveEvery), ("report-every", reportEvery),
    ]
    where !(1...1_000_000_000).contains(value) {
      throw ValidationError("--\(name) must be from 1 to 1000000000.")
    }
    guard !output.isEmpty else { throw ValidationError("Name a place for the result with --output.") }
    guard clipNorm >= 0, clipNorm.isFinite else { throw ValidationError("--clip-norm must be 0 or more.") }
  }

  var outputURL: URL { URL(filePath: output) }
  var stateURL: URL { state.map { URL(filePath: $0) } ?? beside("state.safetensors") }

  /// A file beside the result, with the result's name.
  func beside(_ ending: String) -> URL {
    let url = URL(filePath: output, directoryHint: .notDirectory)
    return url.deletingLastPathComponent().appending(path: "\(url.deletingPathExtension().lastPathComponent).\(ending)")
  }

  /// Reports errors before the work begins, not after it.
  /// - Parameter isFolder: whether the result is a folder.
  func check(isFolder: Bool) throws {
    if isFolder {
      guard !FileManager.default.fileExists(atPath: output) else {
        throw Failure("\(output) exists already; give a name that is not taken, or remove it.")
      }
      try checkWritable(beside("folder"))
    } else {
      guard outputURL.pathExtension.lowercased() == "safetensors" else {
        throw Failure("\(output) must be a name that ends in .safetensors.")
      }
      try checkWritable(outputURL)
    }
    try checkWritable(stateURL)
    guard stateURL.standardized != outputURL.standardized else { throw Failure("The result and the state cannot be one file.") }
    if let log { try checkWritable(URL(filePath: log)) }
    if !resume, FileManager.default.fileExists(atPath: stateURL.path(percentEncoded: false)) {
      throw Failure(
        "\(stateURL.relativePath) is the state of a run before; go on with it by --resume, name another place with --state, or remove it.")
    }
  }

  var learningRates: LearningRateSchedule {
    get throws {
      let rate = try learningRate ?? optimizer.make(weightDecay: weightDecay).usualLearningRate
      return try LearningRateSchedule(schedule.decay, rate: rate, warmupSteps: warmupSteps, steps: steps)
    }
  }

  /// - Parameter company: the processes that train together; nil: this one alone.
  func settings<Objective>(of type: Trainer<Objective>.Type, with company: MPIExchange?) throws -> Trainer<Objective>.Settings {
    var settings = Trainer<Objective>.Settings()
    (settings.share, settings.exchange) = (company?.share ?? .all, company)
    (settings.batches, settings.recomputes) = (gradientAccumulation, recompute)
    settings.clipping = try clipNorm > 0 ? GradientClipping(norm: clipNorm) : nil
    settings.average = ema.map { largest in
      var decay = ExponentialMovingAverage.Decay()
      decay.largest = largest
      return decay
    }
    return settings
  }

  /// What distinguishes the run from others, beside what its command adds. Not the learning rate nor the limit of the norm: a run that fails with these goes on
  /// with others.
  /// - Parameter company: the processes that train together; nil: this one alone. As many batches by fewer processes are the same run.
  func traits(with company: MPIExchange?) -> [String: String] {
    [
      "number of batches in a step": "\(gradientAccumulation * (company?.share.count ?? 1))",
      "optimizer": optimizer.rawValue, "weight decay": weightDecay.map { "\($0)" } ?? "the usual one",
      "seed": "\(seed)",
    ]
  }
}
