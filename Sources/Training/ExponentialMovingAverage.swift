import Foundation
import Tensor

/// An average of the parameters of all steps, which counts earlier ones less and less. Pictures made with it are better than those of the last step.
///
/// θ̄ ← θ̄ − (1 − decay) (θ̄ − θ) after each step. Source: diffusers' `EMAModel`.
public struct ExponentialMovingAverage: Sendable {
  /// How much of the average a step keeps.
  public struct Decay: Sendable, Equatable, Codable {
    /// The most, from 0 to below 1.
    public var largest = 0.9999
    /// The least, from 0 to `largest` (`min_decay`).
    public var smallest = 0.0
    /// Steps that are not averaged: until then the average is the parameters (`update_after_step`).
    public var skippedSteps = 0
    /// How the decay grows from step to step: as 1 − (1 + t / inverseGamma)^−power (`use_ema_warmup`); nil for (1 + t) / (10 + t).
    public var warmup: Warmup?

    /// `inv_gamma` and `power`.
    public struct Warmup: Sendable, Equatable, Codable {
      /// Above 0. The larger, the slower the decay grows.
      public var inverseGamma = 1.0
      /// Above 0. 2/3 suits a million steps, 3/4 fewer.
      public var power = 2.0 / 3

      /// The defaults of diffusers.
      public init() {}
    }

    /// The defaults of diffusers.
    public init() {}

    /// How much of the average a step keeps.
    /// - Parameter step: the number of steps that have been taken, this one among them.
    public func callAsFunction(after step: Int) -> Double {
      let t = Double(step) - Double(skippedSteps) - 1
      guard t > 0 else { return 0 }
      let grown = warmup.map { 1 - pow(1 + t / $0.inverseGamma, -$0.power) } ?? (1 + t) / (10 + t)
      return max(min(grown, largest), smallest)
    }

    fileprivate func check() throws(TrainingError) {
      try TrainingError.check("the decay of the average", largest, "from 0 to below 1") { 0..<1 ~= $0 }
      try TrainingError.check("the smallest decay of the average", smallest, "from 0 to the largest, \(largest)") { 0...largest ~= $0 }
      try TrainingError.check("the number of steps before the average", Double(skippedSteps), "0 or more") { $0 >= 0 }
      try TrainingError.check("the inverse gamma of the average", warmup?.inverseGamma ?? 1, "above 0") { $0 > 0 }
      try TrainingError.check("the power of the average", warmup?.power ?? 1, "above 0") { $0 > 0 }
    }
  }

  /// How much of the average a step keeps.
  public let decay: Decay
  /// The average of each parameter.
  public private(set) var parameters: [Tensor]
  /// The steps that have been taken.
  public private(set) var steps: Int

  /// - Parameters:
  ///   - parameters: those that training begins with, or averages that were saved.
  ///   - decay: how much of the average a step keeps.
  ///   - steps: that have been taken.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(of parameters: [Tensor], decay: Decay = Decay(), steps: Int = 0) throws(TrainingError) {
    try decay.check()
    try TrainingError.check("the number of averaged steps", Double(steps), "0 or more") { $0 >= 0 }
    (self.parameters, self.decay, self.steps) = (parameters, decay, steps)
  }

  /// Takes in the parameters after a step.
  /// - Throws: `TrainingError` where these are not parameters of the same shapes.
  public mutating func update(with parameters: [Tensor], in context: ExecutionContext) throws(TrainingError) {
    guard parameters.count == self.parameters.count else {
      throw .wrongCount(of: "averages", expected: parameters.count, found: self.parameters.count)
    }
    for (place, (parameter, average)) in zip(parameters, self.parameters).enumerated() {
      try TrainingError.check("Parameter \(place)", parameter.shape, average.shape)
    }
    steps += 1
    let gain = Float(1 - decay(after: steps))
    Tensor.update(&self.parameters, reading: [parameters], in: context) { run in
      let (average, parameter) = (run.target(0), run.source(0))
      for i in 0..<run.count { average[i] -= gain * (average[i] - parameter[i]) }
    }
  }
}
