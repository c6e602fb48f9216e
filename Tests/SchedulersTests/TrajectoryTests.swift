import LatentDiffusionComponents
import Schedulers
import Tensor
import LatentDiffusionTestSupport
import Testing

/// Every step of diffusers' trajectories, at 1e-5 of the sample's root mean square.
///
/// Where a schedule begins with next to no signal, σ above 100 (zero terminal SNR, the squared cosine), a clean sample is the small
/// difference of values some σ times as large, and PyTorch's float32, whose square roots are themselves an ulp off, leaves 2e-4.
@Suite struct TrajectoryTests {
  private func tolerance(_ kind: SchedulerKind, _ scheduler: any Scheduler) -> Float {
    guard scheduler.sigmas.allSatisfy({ $0 < 100 }) else { return 2e-4 }
    return loose.contains(kind) ? 1e-4 : 1e-5
  }

  /// Those whose coefficients are small differences of large numbers in PyTorch's float32, in which they cancel.
  private let loose: Set<SchedulerKind> = [.deis, .saSolver, .dpmSolverSinglestep, .dpmSolverMultistepInverse]

  @Test(.compares("Trajectories, step by step", in: .schedulers, with: "diffusers"), arguments: SchedulerKind.allCases)
  func equalsDiffusers(_ kind: SchedulerKind) throws {
    var worst: [Float: Float] = [:]
    let cases = try Trajectory.cases(of: kind)
    #expect(cases.count >= 19)
    for expected in cases {
      let scheduler = try make(kind, expected)
      try compareTables(kind, scheduler, expected)
      let difference = try compareSteps(kind, scheduler, expected)
      worst[tolerance(kind, scheduler)] = max(worst[tolerance(kind, scheduler)] ?? 0, difference)
    }
    let figures = worst.sorted { $0.key < $1.key }.map { "\($0.value) where \($0.key) is allowed" }
    print("\(kind.rawValue): \(cases.count) trajectories, largest relative difference \(figures.joined(separator: ", "))")
  }

  /// k-diffusion has no timesteps but those that follow from σ, and some of diffusers' σ are computed in float32.
  private func tableTolerance(_ kind: SchedulerKind) -> Float { kind.className == nil || kind == .edmDPMSolverMultistep ? 5e-6 : 1e-6 }

  private func make(_ kind: SchedulerKind, _ expected: Trajectory.Case) throws -> any Scheduler {
    let (configuration, steps) = (expected.configuration, expected.trajectory.steps)
    if let strength = expected.trajectory.strength { return try LCMScheduler(configuration, steps: steps, strength: strength) }
    return try kind.make(configuration: configuration, steps: steps)
  }

  private func compareTables(_ kind: SchedulerKind, _ scheduler: any Scheduler, _ expected: Trajectory.Case) throws {
    let timesteps = compare(scheduler.timesteps, expected.trajectory.timesteps)
    #expect(timesteps.error <= tableTolerance(kind), "timesteps, \(expected.name): \(timesteps)")
    #expect(abs(scheduler.initialNoiseScale / expected.trajectory.initialNoiseScale - 1) < 1e-6, "\(expected.name)")
    #expect(scheduler.sigmas.count > scheduler.timesteps.count)
    if let sigmas = expected.trajectory.sigmas {
      let difference = compare(scheduler.sigmas, sigmas.map { $0 ?? .infinity })
      #expect(difference.error <= tableTolerance(kind), "sigmas, \(expected.name): \(difference)")
    }
  }

  private func compareSteps(_ kind: SchedulerKind, _ start: any Scheduler, _ expected: Trajectory.Case) throws -> Float {
    var scheduler = start
    let tolerance = tolerance(kind, start)
    let begin = expected.trajectory.begin
    // Brownian paths are torchsde's own. Their seed comes from PyTorch's generator, which the script seeds with 11.
    var noise: any NoiseSource =
      start is DPMSolverSDEScheduler || start is DPMSolver3MSDEScheduler ? TorchGenerator(seed: 11) : Pseudo.Source()
    var sample = begin == 0 ? Pseudo.noise * scheduler.initialNoiseScale : scheduler.addNoise(Pseudo.noise, to: Pseudo.data, at: begin)
    var original: Tensor?
    var worst = expectClose(sample, expected.samples[0], tolerance: tolerance, "start, \(expected.name)").error
    for (step, target) in zip(begin..<scheduler.timesteps.count, expected.samples.dropFirst()) {
      let predicted = Pseudo.predict(scheduler.scaleInput(sample, at: step), timestep: scheduler.timesteps[step])
      let prediction = scheduler.takesVariance ? Tensor.concatenated([predicted, Pseudo.variance], axis: -1) : predicted
      let result = try scheduler.advance(sample, prediction: prediction, at: step, noise: &noise)
      (sample, original) = (result.sample, result.predictedOriginal)
      worst = max(worst, expectClose(sample, target, tolerance: tolerance, "step \(step), \(expected.name)").error)
    }
    let found = try #require(original)
    if let target = expected.original {
      expectClose(found, target, tolerance: tolerance, "predicted original, \(expected.name)")
    }
    return worst
  }
}
