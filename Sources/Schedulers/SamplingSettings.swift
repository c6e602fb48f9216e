import LatentDiffusionComponents
import Tensor

/// What a run can be asked for beside its steps, by the names that diffusers' and k-diffusion's functions have for it. What is nil is the scheduler's default.
public struct SamplingSettings: Sendable, Equatable {
  /// η, 0…1: how much of the noise is fresh (DDIM, TCD's γ, ancestral samplers, SDE solvers, SA-Solver's τ).
  public var eta: Double?
  /// `s_churn`: how much noise Euler's method adds before its steps (Karras et al., arXiv 2206.00364, algorithm 2).
  public var churn: Double?
  /// `s_noise`: what fresh noise is multiplied by.
  public var noiseScale: Double?
  /// `s_tmin`: noise is added before a step from this σ up.
  public var churnMinimum: Double?
  /// `s_tmax`: noise is added before a step up to this σ.
  public var churnMaximum: Double?
  /// The training timesteps of the steps, falling, in place of a spacing.
  public var timesteps: [Double]?
  /// σ of the steps, falling, in place of a spacing. What is left after the last step is 0, or the smallest σ where the scheduler ends there.
  public var sigmas: [Double]?

  /// Nothing but what the configuration says.
  public init() {}

  /// The names of those that are not nil.
  var names: [String] {
    let all: [(String, Bool)] = [
      ("eta", eta != nil), ("s_churn", churn != nil), ("s_noise", noiseScale != nil), ("s_tmin", churnMinimum != nil),
      ("s_tmax", churnMaximum != nil), ("timesteps", timesteps != nil), ("sigmas", sigmas != nil),
    ]
    return all.filter(\.1).map(\.0)
  }

  /// How many steps are given one by one; nil where none are.
  public var count: Int? { (sigmas ?? timesteps)?.count }

  /// These, and where they are nil others.
  public func before(_ others: SamplingSettings) -> SamplingSettings {
    var result = self
    (result.eta, result.churn, result.noiseScale) = (eta ?? others.eta, churn ?? others.churn, noiseScale ?? others.noiseScale)
    (result.churnMinimum, result.churnMaximum) = (churnMinimum ?? others.churnMinimum, churnMaximum ?? others.churnMaximum)
    // Steps by σ and by timestep exclude each other.
    if count == nil { (result.timesteps, result.sigmas) = (others.timesteps, others.sigmas) }
    return result
  }
}

extension SchedulerConfiguration {
  /// η.
  func eta(default standard: Double) throws(SchedulerError) -> Float {
    try sampled("eta", sampling.eta, default: standard, in: 0...1)
  }

  /// What fresh noise is multiplied by.
  func noiseScale() throws(SchedulerError) -> Float {
    try sampled("s_noise", sampling.noiseScale, default: 1, in: 0...10)
  }

  /// The σ that somebody asks for, in place of a spacing.
  func customSigmas(steps: Int) throws(SchedulerError) -> [Double]? {
    guard let sigmas = sampling.sigmas else { return nil }
    guard sigmas.count == steps else {
      throw .unusableSetting("sigmas", found: "a list of \(sigmas.count)", needed: "as long as there are steps, \(steps)")
    }
    guard sigmas.allSatisfy({ 1e-4...1e6 ~= $0 }), zip(sigmas, sigmas.dropFirst()).allSatisfy({ Float($0) > Float($1) }) else {
      throw .unusableSetting(
        "sigmas", found: "a list that does not fall", needed: "numbers from 1000000 to 0.0001, each below the one before")
    }
    return sigmas
  }

  /// The training timesteps that somebody asks for, in place of a spacing.
  func customTimesteps(steps: Int, trained: Int) throws(SchedulerError) -> [Double]? {
    guard let timesteps = sampling.timesteps else { return nil }
    guard timesteps.count == steps else {
      throw .unusableSetting("timesteps", found: "a list of \(timesteps.count)", needed: "as long as there are steps, \(steps)")
    }
    guard timesteps.allSatisfy({ 0...Double(trained - 1) ~= $0 }), zip(timesteps, timesteps.dropFirst()).allSatisfy({ $0 - $1 >= 1e-3 })
    else {
      throw .unusableSetting(
        "timesteps", found: "a list that does not fall",
        needed: "numbers from \(trained - 1) to 0, each at least 0.001 below the one before")
    }
    return timesteps
  }

  func sampled(_ name: String, _ value: Double?, default standard: Double, in range: ClosedRange<Double>) throws(SchedulerError) -> Float {
    guard range.contains(value ?? standard) else {
      throw .unusableSetting(
        name, found: "\(value ?? standard)", needed: "a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return Float(value ?? standard)
  }
}

/// Noise that is added before a step of Euler's method, as the SDE would (`s_churn` and its siblings).
struct Churn: Sendable, Codable {
  private let amount: Float
  private let noiseScale: Float
  private let minimum: Float
  private let maximum: Float

  init(_ configuration: SchedulerConfiguration) throws(SchedulerError) {
    let sampling = configuration.sampling
    amount = try configuration.sampled("s_churn", sampling.churn, default: 0, in: 0...1e4)
    noiseScale = try configuration.noiseScale()
    minimum = try configuration.sampled("s_tmin", sampling.churnMinimum, default: 0, in: 0...1e10)
    maximum = try configuration.sampled("s_tmax", sampling.churnMaximum, default: 1e10, in: 0...1e10)
  }

  /// The sample with more noise, and its σ.
  func applied(
    to sample: Tensor, sigma: Float, steps: Int, drawing noise: inout any NoiseSource
  ) -> (sample: Tensor, sigma: Float) {
    let gamma = minimum <= sigma && sigma <= maximum ? min(amount / Float(max(steps, 1)), Float(2).squareRoot() - 1) : 0
    guard gamma > 0 else { return (sample, sigma) }
    let raised = sigma * (gamma + 1)
    let added = noise.normal(like: sample) * noiseScale
    return (sample + added * (raised * raised - sigma * sigma).squareRoot(), raised)
  }
}
