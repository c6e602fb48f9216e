import LatentDiffusionComponents
import Foundation
import Schedulers
import LatentDiffusionTestSupport
import Tensor
import Testing

/// The sums and means of magnitudes that diffusers' own tests (`tests/schedulers`) publish for full loops over a toy predictor, with
/// the tolerances stated there.
@Suite struct PublishedLoopTests {
  struct Loop: Sendable, CustomTestStringConvertible {
    let name: String
    let kind: SchedulerKind
    let configuration: String
    var steps = 10
    /// The step to begin at with added noise; nil for a whole loop without.
    var begin: Int?
    var eta: Double?
    /// Whether the loop goes on with the sample as it was scaled for the predictor.
    var goesOnScaled = true
    /// How many times the loop is gone through.
    var rounds = 1
    /// Whether there is one spatial axis in place of two.
    var isFlat = false
    var sum: Double?
    let mean: Double
    var sumTolerance = 1e-2
    var meanTolerance = 1e-3

    var testDescription: String { name }
  }

  @Test(
    .compares("Loops with published sums and means", in: .published, with: "diffusers", unit: .absolute),
    arguments: discrete + multistep + twoPredictions + others)
  func equalsPublished(_ loop: Loop) throws {
    var configuration = try SchedulerConfiguration(json: Data(loop.configuration.utf8))
    configuration.sampling.eta = loop.eta
    var scheduler = try loop.kind.make(configuration: configuration, steps: loop.steps)
    let begin = loop.begin.map { $0 * scheduler.order } ?? 0
    var sample = ramp(isFlat: loop.isFlat, falls: false) * scheduler.initialNoiseScale
    if loop.begin != nil { sample = scheduler.addNoise(ramp(isFlat: loop.isFlat, falls: true), to: sample, at: begin) }
    var noise: any NoiseSource = TorchGenerator(seed: 0)
    for step in (0..<loop.rounds).flatMap({ _ in begin..<scheduler.timesteps.count }) {
      let scaled = scheduler.scaleInput(sample, at: step), timestep = scheduler.timesteps[step]
      // Most of diffusers' tests go on with the scaled sample.
      if loop.goesOnScaled { sample = scaled }
      sample = try scheduler.advance(sample, prediction: scaled * timestep / (timestep + 1), at: step, noise: &noise).sample
    }
    let sum = sample.elements.reduce(0) { $0 + Double(abs($1)) }
    if let expected = loop.sum {
      expect(error: Float(abs(sum - expected)), atMost: Float(loop.sumTolerance), "sum \(sum), published \(expected)")
    }
    let mean = sum / Double(sample.count)
    expect(error: Float(abs(mean - loop.mean)), atMost: Float(loop.meanTolerance), "mean \(mean), published \(loop.mean)")
  }

  /// diffusers' `dummy_sample_deter` and `dummy_noise_deter`, channels last: a batch of 4 with 3 channels, sides of 8.
  private func ramp(isFlat: Bool, falls: Bool) -> Tensor {
    let (batch, channels, places) = (4, 3, isFlat ? 8 : 64)
    let count = batch * channels * places
    var elements: [Float] = []
    for n in 0..<batch {
      for place in 0..<places {
        for channel in 0..<channels {
          let rank = (channel * places + place) * batch + n
          elements.append(Float(falls ? count - 1 - rank : rank) / Float(count))
        }
      }
    }
    return Tensor(elements, shape: isFlat ? [4, 8, 3] : [4, 8, 8, 3])
  }

  private static func configuration(_ trainTimesteps: Int, _ more: String = "") -> String {
    #"{"num_train_timesteps": \#(trainTimesteps), "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"\#(more)}"#
  }

  static let velocity = #", "prediction_type": "v_prediction""#
  static let karras = #", "use_karras_sigmas": true"#

  static let discrete: [Loop] = {
    let ddpm = configuration(1000, #", "variance_type": "fixed_small", "clip_sample": true"#)
    let ddim = configuration(1000, #", "clip_sample": true"#)
    func alphaIsOne(_ isOne: Bool) -> String {
      #"{"beta_start": 0.01, "beta_end": 0.02, "beta_schedule": "linear", "set_alpha_to_one": \#(isOne), "clip_sample": true}"#
    }
    let lcm = #"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}"#
    return [
      Loop(name: "DDPM", kind: .ddpm, configuration: ddpm, steps: 1000, sum: 258.9606, mean: 0.3372),
      Loop(
        name: "DDPM, velocity", kind: .ddpm, configuration: ddpm.dropLast() + velocity + "}", steps: 1000, sum: 202.0296, mean: 0.2631),
      Loop(name: "DDPM, with noise", kind: .ddpm, configuration: ddpm, steps: 1000, begin: 998, sum: 387.9466, mean: 0.5051),
      Loop(name: "DDIM", kind: .ddim, configuration: ddim, sum: 172.0067, mean: 0.223967),
      Loop(name: "DDIM, velocity", kind: .ddim, configuration: ddim.dropLast() + velocity + "}", sum: 52.5302, mean: 0.0684),
      Loop(name: "DDIM, alpha to one", kind: .ddim, configuration: alphaIsOne(true), sum: 149.8295, mean: 0.1951),
      Loop(name: "DDIM, alpha not to one", kind: .ddim, configuration: alphaIsOne(false), sum: 149.0784, mean: 0.1941),
      Loop(name: "DDIM, with noise", kind: .ddim, configuration: ddim, begin: 8, sum: 354.5418, mean: 0.4616),
      Loop(name: "PNDM", kind: .pndm, configuration: configuration(1000), sum: 198.1318, mean: 0.2580),
      Loop(name: "PNDM, velocity", kind: .pndm, configuration: configuration(1000, velocity), sum: 67.3986, mean: 0.0878),
      Loop(name: "PNDM, alpha to one", kind: .pndm, configuration: alphaIsOne(true), sum: 230.0399, mean: 0.2995),
      Loop(name: "PNDM, alpha not to one", kind: .pndm, configuration: alphaIsOne(false), sum: 186.9482, mean: 0.2434),
      Loop(name: "LCM, one step", kind: .lcm, configuration: lcm, steps: 1, sum: 18.7097, mean: 0.0244, sumTolerance: 1e-3),
      Loop(name: "LCM, ten steps", kind: .lcm, configuration: lcm, sum: 197.7616, mean: 0.2575, sumTolerance: 1e-3),
    ]
  }()

  static let multistep: [Loop] = {
    let plain = configuration(1100)
    let solver = #", "solver_order": 2, "final_sigmas_type": "sigma_min""#
    let dpmKeys = solver + #", "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "lower_order_final": false"#
    let uniPCKeys = solver + #", "solver_type": "bh2""#
    func dpm(_ more: String = "") -> String { configuration(1000, dpmKeys + more) }
    func uniPC(_ more: String = "") -> String { configuration(1000, uniPCKeys + more) }
    let threshold = #", "thresholding": true, "dynamic_thresholding_ratio": 0.87, "sample_max_value": 0.5"#
    return [
      Loop(name: "Euler", kind: .euler, configuration: plain, sum: 10.0807, mean: 0.0131),
      Loop(name: "Euler, velocity", kind: .euler, configuration: configuration(1100, velocity), sum: 0.0002, mean: 2.2676e-06),
      Loop(
        name: "Euler, Karras", kind: .euler, configuration: configuration(1100, karras), sum: 124.52299499511719,
        mean: 0.16213932633399963),
      Loop(name: "Euler, with noise", kind: .euler, configuration: plain, begin: 8, sum: 57062.9297, mean: 74.3007),
      Loop(name: "Euler ancestral", kind: .eulerAncestral, configuration: plain, sum: 152.3192, mean: 0.1983),
      Loop(
        name: "Euler ancestral, velocity", kind: .eulerAncestral, configuration: configuration(1100, velocity), sum: 108.4439,
        mean: 0.1412),
      Loop(name: "Euler ancestral, with noise", kind: .eulerAncestral, configuration: plain, begin: 8, sum: 56163.0508, mean: 73.1290),
      Loop(name: "Heun", kind: .heun, configuration: plain, sum: 0.1233, mean: 0.0002),
      Loop(name: "Heun, velocity", kind: .heun, configuration: configuration(1100, velocity), sum: 4.6934e-07, mean: 6.1112e-10),
      Loop(name: "Heun, Karras", kind: .heun, configuration: configuration(1100, karras), sum: 0.00015, mean: 1.9869554535034695e-07),
      Loop(name: "Heun, with noise", kind: .heun, configuration: plain, begin: 8, sum: 75074.8906, mean: 97.7538),
      Loop(name: "LMS", kind: .lms, configuration: plain, sum: 1006.388, mean: 1.31),
      Loop(name: "LMS, velocity", kind: .lms, configuration: configuration(1100, velocity), sum: 0.0017, mean: 2.2676e-06),
      Loop(name: "LMS, Karras", kind: .lms, configuration: configuration(1100, karras), sum: 3812.9927, mean: 4.9648, sumTolerance: 2e-2),
      Loop(name: "LMS, with noise", kind: .lms, configuration: plain, begin: 8, sum: 27663.6895, mean: 36.0204),
      Loop(name: "DPM-Solver++", kind: .dpmSolverMultistep, configuration: dpm(), mean: 0.3301),
      Loop(name: "DPM-Solver++, with noise", kind: .dpmSolverMultistep, configuration: dpm(), begin: 5, sum: 318.4111, mean: 0.4146),
      Loop(name: "DPM-Solver++, thresholds", kind: .dpmSolverMultistep, configuration: dpm(threshold), mean: 1.1364),
      Loop(name: "DPM-Solver++, velocity", kind: .dpmSolverMultistep, configuration: dpm(velocity), mean: 0.2251),
      Loop(name: "DPM-Solver++, Karras, velocity", kind: .dpmSolverMultistep, configuration: dpm(velocity + karras), mean: 0.2096),
      Loop(
        name: "DPM-Solver++, Lu, velocity", kind: .dpmSolverMultistep,
        configuration: dpm(velocity + #", "use_lu_lambdas": true"#), mean: 0.1554),
      Loop(name: "UniPC", kind: .uniPC, configuration: uniPC(), mean: 0.2464),
      Loop(name: "UniPC, Karras", kind: .uniPC, configuration: uniPC(karras), mean: 0.2925),
      Loop(name: "UniPC, velocity", kind: .uniPC, configuration: uniPC(velocity), mean: 0.1014),
      Loop(name: "UniPC, Karras, velocity", kind: .uniPC, configuration: uniPC(velocity + karras), mean: 0.1966),
      Loop(name: "UniPC, with noise", kind: .uniPC, configuration: uniPC(), begin: 8, sum: 315.5757, mean: 0.4109),
      Loop(name: "UniPC in 1D", kind: .uniPC, configuration: uniPC(), isFlat: true, mean: 0.2441),
      Loop(name: "UniPC in 1D, Karras", kind: .uniPC, configuration: uniPC(karras), isFlat: true, mean: 0.2898),
      Loop(name: "UniPC in 1D, velocity", kind: .uniPC, configuration: uniPC(velocity), isFlat: true, mean: 0.1014),
      Loop(name: "UniPC in 1D, Karras, velocity", kind: .uniPC, configuration: uniPC(velocity + karras), isFlat: true, mean: 0.1944),
      Loop(name: "UniPC in 1D, with noise", kind: .uniPC, configuration: uniPC(), begin: 8, isFlat: true, sum: 39.0870, mean: 0.4072),
    ]
  }()
  // What is published for DPM-Solver SDE and the singlestep solver is not what diffusers 0.42.1 gives. Trajectories compare those two.
  static let twoPredictions: [Loop] = {
    let plain = configuration(1100)
    return [
      Loop(name: "KDPM2", kind: .kdpm2, configuration: plain, sum: 20.4125, mean: 0.0266),
      Loop(name: "KDPM2, velocity", kind: .kdpm2, configuration: configuration(1100, velocity), sum: 4.6934e-07, mean: 6.1112e-10),
      Loop(name: "KDPM2, with noise", kind: .kdpm2, configuration: plain, begin: 8, sum: 70408.4062, mean: 91.6776),
      Loop(name: "KDPM2 ancestral", kind: .kdpm2Ancestral, configuration: plain, sum: 13979.9433, mean: 18.2030, meanTolerance: 5e-3),
      Loop(
        name: "KDPM2 ancestral, velocity", kind: .kdpm2Ancestral, configuration: configuration(1100, velocity), sum: 331.8133,
        mean: 0.4320),
      Loop(
        name: "KDPM2 ancestral, with noise", kind: .kdpm2Ancestral, configuration: plain, begin: 8, sum: 93087.3437, mean: 121.2074,
        meanTolerance: 5e-3),
    ]
  }()

  static let others: [Loop] = {
    let (deis, sa) = (configuration(1000, #", "solver_order": 2"#), configuration(1100))
    let inverse = configuration(1000, #", "clip_sample": true"#)
    func alphaIsOne(_ isOne: Bool) -> String {
      #"{"beta_start": 0.01, "beta_end": 0.02, "beta_schedule": "linear", "set_alpha_to_one": \#(isOne), "clip_sample": true}"#
    }
    let tcd = #"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}"#
    func karrasForm(_ steps: Int) -> String { #"{"num_train_timesteps": \#(steps), "sigma_min": 0.002, "sigma_max": 80.0}"# }
    return [
      Loop(name: "DEIS", kind: .deis, configuration: deis, mean: 0.23916),
      Loop(name: "DEIS, velocity", kind: .deis, configuration: deis.dropLast() + velocity + "}", mean: 0.091),
      Loop(name: "DEIS, with noise", kind: .deis, configuration: deis, begin: 8, sum: 315.3016, mean: 0.41054),
      Loop(name: "SA-Solver", kind: .saSolver, configuration: sa, sum: 337.394287109375, mean: 0.43931546807289124),
      Loop(
        name: "SA-Solver, velocity", kind: .saSolver, configuration: configuration(1100, velocity), sum: 193.1467742919922,
        mean: 0.2514931857585907),
      Loop(
        name: "SA-Solver, Karras", kind: .saSolver, configuration: configuration(1100, karras), sum: 837.2554931640625,
        mean: 1.0901764631271362, meanTolerance: 1e-2),
      Loop(name: "TCD, one step", kind: .tcd, configuration: tcd, steps: 1, eta: 0, sum: 29.8715, mean: 0.0389, sumTolerance: 1e-3),
      Loop(name: "TCD, ten steps", kind: .tcd, configuration: tcd, eta: 0, sum: 181.2040, mean: 0.2359, sumTolerance: 1e-3),
      Loop(
        name: "EDM Euler", kind: .edmEuler, configuration: karrasForm(256), goesOnScaled: false, sum: 34.1855, mean: 0.044,
        sumTolerance: 1e-3),
      Loop(
        name: "Consistency model", kind: .cmStochasticIterative, configuration: karrasForm(201), steps: 1, goesOnScaled: false,
        sum: 192.7614, mean: 0.2510),
      Loop(name: "DDIM inverse", kind: .ddimInverse, configuration: inverse, sum: 671.6816, mean: 0.8746),
      Loop(
        name: "DDIM inverse, velocity", kind: .ddimInverse, configuration: inverse.dropLast() + velocity + "}", sum: 1394.2185,
        mean: 1.8154),
      Loop(name: "DDIM inverse, alpha to one", kind: .ddimInverse, configuration: alphaIsOne(true), sum: 539.9622, mean: 0.7031),
      Loop(name: "DDIM inverse, alpha not to one", kind: .ddimInverse, configuration: alphaIsOne(false), sum: 542.6722, mean: 0.7066),
      Loop(name: "IPNDM", kind: .ipndm, configuration: "{}", rounds: 2, mean: 2_540_529, meanTolerance: 10),
    ]
  }()
}
