import LatentDiffusionComponents
import Schedulers
import Tensor
import LatentDiffusionTestSupport
import Testing

/// What follows from the formulas, and is in none of diffusers' numbers.
@Suite struct BehaviourTests {
  private func loop(
    _ scheduler: inout any Scheduler, _ sample: Tensor, _ steps: Range<Int>, _ noise: inout any NoiseSource
  ) throws -> Tensor {
    var sample = sample
    for step in steps {
      let prediction = Pseudo.predict(scheduler.scaleInput(sample, at: step), timestep: scheduler.timesteps[step])
      sample = try scheduler.advance(sample, prediction: prediction, at: step, noise: &noise).sample
    }
    return sample
  }

  @Test(arguments: SchedulerKind.allCases)
  func aCopyIsACheckpoint(_ kind: SchedulerKind) throws {
    var scheduler = try kind.make(configuration: SchedulerConfiguration(), steps: 6)
    var noise: any NoiseSource = Pseudo.Source()
    let count = scheduler.timesteps.count
    let middle = try loop(&scheduler, Pseudo.noise * scheduler.initialNoiseScale, 0..<count / 2, &noise)
    var (copy, copiedNoise) = (scheduler, noise)
    let end = try loop(&scheduler, middle, count / 2..<count, &noise)
    #expect(try loop(&copy, middle, count / 2..<count, &copiedNoise).elements == end.elements)
  }

  /// A predictor that knows the clean sample leads there, whatever it predicts, and each step's guess is it.
  /// Those that run from a picture to noise, and those whose networks predict something else.
  private static let others: Set<SchedulerKind> = [
    .ddimInverse, .dpmSolverMultistepInverse, .edmEuler, .edmDPMSolverMultistep, .ipndm, .cmStochasticIterative,
  ]

  @Test(arguments: Set(SchedulerKind.allCases).subtracting(others), ["epsilon", "sample", "v_prediction"])
  func aPerfectPredictorFindsThePicture(_ kind: SchedulerKind, _ type: String) throws {
    var configuration = SchedulerConfiguration()
    (configuration.predictionType, configuration.clipSample, configuration.skipPRKSteps) = (type, false, true)
    configuration.setAlphaToOne = true
    var scheduler = try kind.make(configuration: configuration, steps: 12)
    var noise: any NoiseSource = Pseudo.Source()
    var sample = scheduler.addNoise(Pseudo.noise, to: Pseudo.data, at: 0)
    let scales = scheduler.scaleInput(Pseudo.data, at: 0).elements != Pseudo.data.elements
    for step in scheduler.timesteps.indices {
      // In the middle of a step σ is what the input is scaled by.
      let divisor = scheduler.schedule.levels[step].inputDivisor
      let sigma = scales ? (divisor * divisor - 1).squareRoot() : scheduler.sigmas[step]
      // x = α (x₀ + σ ε), where α = 1 for the samplers that scale their input.
      let alpha = 1 / (sigma * sigma + 1).squareRoot()
      let clean = Pseudo.data
      let epsilon = ((scales ? sample : sample / alpha) - clean) / sigma
      let prediction =
        switch type {
        case "epsilon": epsilon
        case "sample": clean
        default: alpha * epsilon - sigma * alpha * clean
        }
      let result = try scheduler.advance(sample, prediction: prediction, at: step, noise: &noise)
      expectClose(try #require(result.predictedOriginal), clean, tolerance: 2e-4, "\(kind) \(type) step \(step)")
      sample = result.sample
    }
    // DDPM and DDIM stop at their table's end, where σ is next to nothing; PNDM mixes predictions of other samples than the last.
    expectClose(sample, Pseudo.data, tolerance: 5e-2, "\(kind) \(type)")
  }

  @Test func drawsNoiseInPyTorchsOrder() throws {
    var noise: any NoiseSource = TorchGenerator(seed: 3)
    var scheduler = try EulerAncestralDiscreteScheduler(steps: 2)
    let zero = Tensor(shape: [2, 2, 3, 4])
    let drawn = try scheduler.advance(zero, prediction: zero, at: 0, noise: &noise).sample
    var reference = TorchGenerator(seed: 3)
    let expected = Tensor(reference.normal(48), shape: [2, 4, 2, 3]).channelsLast()
    let scale = drawn.elements[0] / expected.elements[0]
    expectClose(drawn, expected * scale, tolerance: 1e-5)
    // Other ranks have no channels to move.
    var flat: any NoiseSource = TorchGenerator(seed: 3)
    let row = Tensor(shape: [48])
    let plain = try scheduler.advance(row, prediction: row, at: 0, noise: &flat).sample
    expectClose(plain.elements, (expected.channelsFirst() * scale).elements, tolerance: 1e-5)
  }

  @Test func someTakeSeveralPredictionsAStep() throws {
    let twice: Set<SchedulerKind> = [.heun, .restart, .kdpm2, .kdpm2Ancestral, .dpmSolverSDE, .dpmSolver2SAncestral]
    for kind in SchedulerKind.allCases {
      let scheduler = try kind.make(configuration: SchedulerConfiguration(), steps: 5)
      #expect(scheduler.order == (kind == .heunPP2 ? 3 : twice.contains(kind) ? 2 : 1))
      // The last step takes one prediction, Heun++'s last but one two.
      if scheduler.order > 1 { #expect(scheduler.timesteps.count == (kind == .heunPP2 ? 12 : 9)) }
    }
  }
}
