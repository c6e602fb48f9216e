import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import LatentDiffusionWeights
import Schedulers
import Synchronization
import Tensor
import Testing
import UNet

/// Twenty steps of diffusers' training loops on a tiny model, with the same noise and timesteps (`Tests/Fixtures/training/make_loops.py`).
@Suite struct TrainingLoopTests {
  private let context = ExecutionContext(threads: 2)

  /// PEFT's `target_modules` of the loops.
  private static let targets = [
    "lora": ["to_k", "to_q", "to_v", "to_out.0"],
    "convolutions": ["to_q", "conv1", "conv2", "conv_shortcut", "ff.net.0.proj", "proj_in", "time_emb_proj", "conv"],
  ]

  /// The numbers with which the fixture's low-rank factors begin.
  private func formula(_ shape: Shape, seed: Int) -> Tensor {
    Tensor((0..<shape.count).map { 0.1 * (Float(($0 + 131 * seed) * 7919 % 1000) / 500 - 1) }, shape: shape)
  }

  private func trained(_ loop: String, _ labels: [ParameterLabel], from source: any WeightSource) throws -> any Trainable {
    guard let targets = Self.targets[loop] else { return try TrainedParameters(labels, from: source) }
    let chosen = labels.filter { label in targets.contains { label.name.hasSuffix(".\($0).weight") } }
    var generator = TorchGenerator(seed: 0)
    let rank = loop == "lora" ? 4 : 3
    var changes = TrainedLowRank(chosen, rank: rank, alpha: Float(loop == "lora" ? rank : 2 * rank), with: &generator)
    // PEFT names the adapter in its keys: `.default`.
    changes.values = zip(changes.names, changes.values).map { formula($1.shape, seed: $0.count + ".default".count) }
    return changes
  }

  /// The losses to 1e-4, and how far every parameter has moved to 1e-3 of its rms. A step of Adam divides by the gradient's own size, so what has a
  /// gradient of zero but for rounding (the bias of keys) moves at random, and values whose gradient changes its sign move less exactly than others.
  @Test(arguments: ["full", "lora", "convolutions"], [false, true]) func equalsDiffusers(loop: String, recomputing: Bool) throws {
    let files = try ModelFiles(ReferenceModel("sd1").folder), source = try files.weights(of: "unet")
    let json = try #require(try files.configuration(of: "unet"))
    let (unet, report) = try LoadReport.load(from: source, in: context) { try UNet2DConditionModel(configuration: json, weights: $0) }
    var expected = try readTensors(fixtures.appending(path: "training/loops.safetensors"))
    let start: any Trainable = try trained(loop, report.parameters, from: source)
    let scheduler = try Data(contentsOf: ReferenceModel("sd1").folder.appending(path: "scheduler/scheduler_config.json"))
    let objective = try NoiseObjective(JSONDecoder().decode(SchedulerConfiguration.self, from: scheduler))
    let latents = try #require(expected["latents"]).channelsLast(), states = try #require(expected["states"])
    let noise = try #require(expected["noise"]), timesteps = try #require(expected["timesteps"])
    let losses = try #require(expected["\(loop).losses"]).elements
    expected["\(loop).losses"] = nil
    let batches = losses.indices.map { index in
      NoisePrediction.Batch(
        latents: latents,
        draw: .init(
          noise: noise.rows(index..<index + 1).reshaped([2, 4, 8, 8]).channelsLast(),
          timesteps: timesteps.rows(index..<index + 1).elements.map { Int($0) })
      ) { _ in Conditioning(hiddenStates: states) }
    }
    var settings = Trainer<NoisePrediction>.Settings()
    (settings.clipping, settings.recomputes) = (try GradientClipping(norm: 1), recomputing)
    var trainer = try Trainer(
      NoisePrediction(by: unet, objective: objective), on: GivenBatches(batches: batches), training: start, by: AdamW(),
      schedule: LearningRateSchedule(rate: loop == "full" ? 1e-4 : 1e-3, steps: 20), settings: settings, seed: 0)
    for (index, loss) in losses.enumerated() {
      let step = try trainer.step(in: context)
      #expect(abs(step.loss - Double(loss)) <= 1e-4 * Double(loss), "step \(index + 1): \(step.loss), expected \(loss)")
    }
    var (worst, compared) = ((error: Float(0), name: "nothing"), 0)
    for (name, (before, after)) in zip(start.names, zip(start.values, trainer.trained.values)) {
      let sample = try #require(expected["\(loop).\(name)"], "\(name) is not in the reference").elements
      compared += 1
      if name.hasSuffix("to_k.bias") { continue }
      let (old, new) = (before.elements, after.elements), n = sample.count - 1
      let squares = zip(old, new).reduce(0.0) { $0 + Double($1.1 - $1.0) * Double($1.1 - $1.0) }
      let error = abs(Float((squares / Double(old.count)).squareRoot()) - sample[0]) / sample[0]
      #expect(error <= 1e-3, "\(name): \(error)")
      if error > worst.error { worst = (error, name) }
      for i in 0..<n {
        let place = i * old.count / n, moved = new[place] - old[place]
        #expect(abs(moved - sample[i + 1]) <= 0.02 * sample[0], "\(name) [\(place)]: \(moved), expected \(sample[i + 1])")
      }
    }
    #expect(compared == expected.keys.filter { $0.hasPrefix(loop + ".") }.count)
    print("\(loop): \(compared) parameters, largest difference \(worst.error) of how far it moved in \(worst.name)")
  }
}

/// Batches that are known beforehand.
struct GivenBatches<Batch: Sendable>: TrainingDataset {
  let batches: [Batch]

  func batch(_ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext) -> Batch {
    batches[number % batches.count]
  }
}

/// Machines that take turns with the batches, and a run in parts.
@Suite struct TrainerTests {
  /// y = w · x, whose w is sought.
  private struct Line: TrainingObjective {
    let layer: Linear

    func answer(to batch: (x: Tensor, y: Tensor), in recording: ExecutionContext) throws -> TrainingAnswer {
      let answer = try layer(batch.x, in: recording)
      let loss = try ElementLoss.meanSquared(answer, batch.y, in: recording)
      return TrainingAnswer(loss: loss.value, parts: ["squared": loss.value], gradients: [(answer, loss.gradient)])
    }
  }

  private struct Points: TrainingDataset {
    func batch(_ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext) -> (x: Tensor, y: Tensor) {
      let x = Tensor(generator.normal(64), shape: [16, 4])
      return (x, Tensor((0..<16).map { x.elements[4 * $0] - 2 * x.elements[4 * $0 + 3] }, shape: [16, 1]))
    }
  }

  /// Two trainers on threads of their own, whose gradients meet here.
  private final class Meeting: GradientExchange {
    private struct State {
      var waiting: (loss: Double, gradients: [Tensor])?
      var means: (loss: Double, gradients: [Tensor])?
    }
    private let state = Mutex(State())

    func average(_ loss: inout Double, _ gradients: inout [Tensor]) throws {
      let (own, ownLoss) = (gradients, loss)
      var means = state.withLock { state -> (Double, [Tensor])? in
        guard let first = state.waiting else {
          state.waiting = (ownLoss, own)
          return nil
        }
        state.means = ((first.loss + ownLoss) / 2, zip(first.gradients, own).map { 0.5 * ($0 + $1) })
        return state.means
      }
      let isSecond = means != nil
      while means == nil {
        Thread.sleep(forTimeInterval: 0.0001)
        means = state.withLock { state in
          defer { if state.means != nil { state = State() } }
          return state.means
        }
      }
      if let means { (loss, gradients) = means }
      // The second one waits until the first has gone, so that neither is a step ahead.
      while isSecond, state.withLock({ $0.means != nil }) { Thread.sleep(forTimeInterval: 0.0001) }
    }
  }

  private let context = ExecutionContext(threads: 1)

  private func trainer(batches: Int, share: BatchShare = .all, exchange: (any GradientExchange)? = nil) throws -> Trainer<Line> {
    let (layer, report) = try LoadReport.load(from: RandomWeights(seed: 1), in: context) { try Linear(4, 1, weights: $0) }
    var settings = Trainer<Line>.Settings(), generator = TorchGenerator(seed: 3)
    (settings.batches, settings.share, settings.exchange) = (batches, share, exchange)
    settings.average = .init()
    return try Trainer(
      Line(layer: layer), on: Points(), training: TrainedParameters(report.parameters, drawing: &generator), by: AdamW(),
      schedule: LearningRateSchedule(rate: 0.05, steps: 40), settings: settings, seed: 9)
  }

  @Test func twoMachinesAreOneWithTwiceTheBatches() async throws {
    let meeting = Meeting()
    let trained = try await withThrowingTaskGroup(of: [Tensor].self) { group in
      for index in 0..<2 {
        let trainer = try trainer(batches: 2, share: BatchShare(index: index, count: 2), exchange: meeting)
        group.addTask {
          let run = trainer.steps(in: ExecutionContext(threads: 1))
          for try await _ in run {}
          return run.trainer.trained.values
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    var whole = try trainer(batches: 4)
    for _ in 0..<40 { _ = try whole.step(in: context) }
    for values in trained {
      for (value, expected) in zip(values, whole.trained.values) {
        for (a, b) in zip(value.elements, expected.elements) { #expect(abs(a - b) <= 1e-5, "\(a), expected \(b)") }
      }
    }
    let weights = try #require(whole.trained.values.first).elements
    for (weight, expected) in zip(weights, [1, 0, 0, -2]) { #expect(abs(weight - Float(expected)) < 0.1, "\(weights)") }
  }

  @Test func aRunInPartsEndsWithTheSameBytes() throws {
    var whole = try trainer(batches: 1)
    for _ in 0..<12 { _ = try whole.step(in: context) }
    var first = try trainer(batches: 1)
    for _ in 0..<5 { _ = try first.step(in: context) }
    var second = try trainer(batches: 1)
    try second.restore(first.state(["run": "a"]))
    for _ in 5..<12 { #expect(try second.step(in: context).parts["squared"] != nil) }
    #expect(second.steps == 12)
    for (a, b) in zip(second.result.values, whole.result.values) { #expect(a.elements == b.elements) }
    for (a, b) in zip(second.trained.values, whole.trained.values) { #expect(a.elements == b.elements) }
  }
}
