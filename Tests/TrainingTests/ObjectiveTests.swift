import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import Schedulers
import Tensor
import Testing

/// Against the steps of diffusers' `train_text_to_image.py`.
@Suite struct ObjectiveTests {
  private struct Case: Decodable {
    let scheduler: SchedulerConfiguration
    let seed: UInt64
    let weighting, lossType: String
    let gamma, c, loss: Double
    let offset, perturbation: Float
    let timesteps: [Int]

    var settings: NoiseObjective.Settings {
      var settings = NoiseObjective.Settings()
      settings.weighting =
        switch weighting {
        case "uniform": .uniform
        case "min_snr": .minSNR(gamma: gamma)
        default: .debiasedEstimation
        }
      settings.loss =
        switch lossType {
        case "l2": .meanSquared
        case "l1": .meanAbsolute
        case "huber": .huber(c: c)
        default: .smoothAbsolute(c: c)
        }
      (settings.offset, settings.perturbation) = (offset, perturbation)
      return settings
    }
  }

  private let context = ExecutionContext(threads: 2)

  @Test func examplesAndLossesAreTheReferences() throws {
    var count = 0, worst = 0.0, worstGradient: Float = 0
    for item in try ReferenceCases<Case>("training/objectives.safetensors") {
      let objective = try NoiseObjective(item.parameters.scheduler, settings: item.parameters.settings)
      var generator = TorchGenerator(seed: item.parameters.seed)
      let latents = try item["latents"].asPictures
      let draw = try objective.draw(for: latents, with: &generator)
      #expect(draw.timesteps == item.parameters.timesteps, "\(item.name)")
      let example = try objective.example(of: latents, draw)
      expectClose(example.sample, try item["sample"].asPictures, tolerance: 2e-6, "\(item.name), sample")
      expectClose(example.target, try item["target"].asPictures, tolerance: 2e-6, "\(item.name), target")
      let loss = try objective.loss(of: item["answer"].asPictures, example, in: context)
      let error = abs(loss.value - item.parameters.loss) / item.parameters.loss
      #expect(error < 1e-5, "\(item.name): loss \(loss.value) for \(item.parameters.loss)")
      let gradient = expectClose(loss.gradient, try item["gradient"].asPictures, tolerance: 1e-5, "\(item.name), gradient").error
      (worst, worstGradient, count) = (max(worst, error), max(worstGradient, gradient), count + 1)
    }
    #expect(count == 15)
    print("Noise objectives: losses differ by \(worst), gradients by \(worstGradient) at most")
  }

  /// A gradient says how the loss changes.
  @Test func gradientsAreSlopes() throws {
    var numbers = Numbers(seed: 3)
    let (answer, target, direction) = (numbers.tensor([2, 3, 3, 2]), numbers.tensor([2, 3, 3, 2]), numbers.tensor([2, 3, 3, 2]))
    for loss in [ElementLoss.meanSquared, .meanAbsolute, .huber(c: 0.3), .smoothAbsolute(c: 0.3)] {
      let here = try loss(answer, target, in: context)
      let slope = (here.gradient * direction).elements.reduce(0) { $0 + Double($1) }
      let there =
        try (loss(answer + 1e-3 * direction, target, in: context).value - loss(answer - 1e-3 * direction, target, in: context).value)
      #expect(abs(there / 2e-3 - slope) < 2e-3 * abs(slope), "\(loss): \(there / 2e-3) for \(slope)")
    }
  }

  @Test func lossesAdd() throws {
    let (first, second) = (
      try ElementLoss.meanSquared(Tensor([1, 2]), Tensor([0, 0]), in: context),
      try ElementLoss.meanAbsolute(Tensor([1, 2]), Tensor([0, 3]), in: context)
    )
    let sum = try first.adding(second, weight: 0.5, in: context)
    #expect(sum.value == 3 && sum.gradient.elements == [1.25, 1.75])
    #expect(first.gradient.elements == [1, 2])
  }

  /// Where no signal is left, SNR is 0, and the weights are what their formulas come to there.
  @Test func weightsWithoutSignal() throws {
    var configuration = SchedulerConfiguration()
    (configuration.rescaleBetasZeroSNR, configuration.betaSchedule) = (true, "scaled_linear")
    let levels = try configuration.trainingLevels()
    let latents = Tensor(repeating: 0.5, shape: [1, 2, 2, 4])
    let draw = NoiseObjective.Draw(noise: Tensor(repeating: 1, shape: latents.shape), timesteps: [levels.count - 1])
    var settings = NoiseObjective.Settings()
    settings.weighting = .minSNR(gamma: 5)
    for (prediction, weight) in [(PredictionType.epsilon, 1.0), (.vPrediction, 0), (.sample, 0)] {
      let example = try NoiseObjective(levels: levels, prediction: prediction, settings: settings).example(of: latents, draw)
      #expect(example.weights == [weight] && example.sample.elements == draw.noise.elements)
    }
    settings.weighting = .debiasedEstimation
    #expect(throws: TrainingError.self) { try NoiseObjective(levels: levels, prediction: .epsilon, settings: settings) }
    let example = try NoiseObjective(levels: levels, prediction: .vPrediction, settings: settings).example(of: latents, draw)
    #expect(example.weights == [1])
  }

  @Test func timestepsAreEquallyOften() throws {
    let objective = try NoiseObjective(SchedulerConfiguration())
    var generator = TorchGenerator(seed: 1), counts = [Int](repeating: 0, count: 10)
    let latents = Tensor(shape: [500, 1, 1, 1])
    for _ in 0..<20 { for timestep in try objective.draw(for: latents, with: &generator).timesteps { counts[timestep / 100] += 1 } }
    #expect(counts.allSatisfy { abs($0 - 1000) < 150 }, "\(counts)")
  }

  @Test func captionsAreLeftOutAsOftenAsAsked() throws {
    var generator = TorchGenerator(seed: 1), again = TorchGenerator(seed: 1)
    let dropout = try CaptionDropout(probability: 0.1)
    let rows = dropout(10_000, with: &generator)
    #expect(abs(rows.count { $0 } - 1000) < 100)
    #expect(rows == dropout(10_000, with: &again))
    // What follows does not depend on the probability.
    var none = TorchGenerator(seed: 1)
    #expect(try CaptionDropout(probability: 0)(10_000, with: &none).allSatisfy { !$0 })
    #expect(none.nextUInt32() == generator.nextUInt32())
    #expect(try CaptionDropout(probability: 1)(100, with: &none).allSatisfy { $0 })
    for wrong in [-0.1, 1.1, .nan] { #expect(throws: TrainingError.self) { try CaptionDropout(probability: wrong) } }
  }

  @Test func impossibleObjectivesAreRefused() throws {
    let levels = [NoiseLevel(alphaCumprod: 0.5)]
    func expectRefusal(_ change: (inout NoiseObjective.Settings) -> Void) {
      var settings = NoiseObjective.Settings()
      change(&settings)
      #expect(throws: TrainingError.self) { try NoiseObjective(levels: levels, prediction: .epsilon, settings: settings) }
    }
    expectRefusal { $0.offset = -1 }
    expectRefusal { $0.perturbation = .nan }
    expectRefusal { $0.weighting = .minSNR(gamma: 0) }
    expectRefusal { $0.loss = .huber(c: 0) }
    #expect(throws: TrainingError.self) { try NoiseObjective(levels: [], prediction: .epsilon) }
    let objective = try NoiseObjective(levels: levels, prediction: .epsilon)
    let latents = Tensor(shape: [1, 2, 2, 4])
    var generator = TorchGenerator(seed: 1)
    #expect(throws: TrainingError.self) { try objective.draw(for: Tensor([1]), with: &generator) }
    for timestep in [-1, 1] {
      #expect(throws: TrainingError.timestepOutOfRange(timestep, count: 1)) {
        try objective.example(of: latents, NoiseObjective.Draw(noise: latents, timesteps: [timestep]))
      }
    }
    #expect(throws: TrainingError.self) { try objective.example(of: latents, NoiseObjective.Draw(noise: latents, timesteps: [0, 0])) }
    #expect(throws: TrainingError.self) { try objective.example(of: latents, NoiseObjective.Draw(noise: Tensor([1]), timesteps: [0])) }
    let example = try objective.example(of: latents, NoiseObjective.Draw(noise: latents, timesteps: [0]))
    #expect(throws: TrainingError.lossNotFinite) {
      try objective.loss(of: Tensor(repeating: .nan, shape: latents.shape), example, in: context)
    }
    #expect(throws: TrainingError.wrongShape(of: "The prediction", expected: [1, 2, 2, 4], found: [1])) {
      try objective.loss(of: Tensor([1]), example, in: context)
    }
  }
}
