import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import LatentDiffusionWeights
import Schedulers
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
