import Foundation

/// The learning rate of each step: a warm-up in equal steps from 0, then a decay.
///
/// Source: diffusers' `get_scheduler`.
public struct LearningRateSchedule: Sendable, Equatable {
  /// What follows the warm-up. p is how much of the rest of the run is over, 0…1.
  public enum Decay: Sendable, Equatable {
    /// The rate stays (`constant`, `constant_with_warmup`).
    case constant
    /// 1 − p.
    case linear
    /// Half a period of a cosine: ½ (1 + cos πp).
    case cosine
    /// That many halves of a period, each of which begins at 1 again (`cosine_with_restarts`).
    case cosineWithRestarts(cycles: Int)
    /// (1 − p)^power, down to a rate of 1e-7.
    case polynomial(power: Double)
  }

  /// The largest learning rate that makes sense with any of the optimisers.
  public static let largestRate: Float = 10

  /// The rate at which a polynomial decay ends.
  private static let lastRate = 1e-7

  /// The rate at the end of the warm-up.
  public let rate: Float
  /// Steps until the rate is reached; the first of them has a rate of 0.
  public let warmupSteps: Int
  /// Steps of the whole run.
  public let steps: Int
  /// What follows the warm-up.
  public let decay: Decay

  /// - Parameters:
  ///   - decay: what follows the warm-up.
  ///   - rate: the rate at the end of the warm-up, above 0 and at most `largestRate`.
  ///   - warmupSteps: from 0 up; fewer than `steps`, unless the rate is constant.
  ///   - steps: of the whole run, from 1 up.
  /// - Throws: `TrainingError`.
  public init(_ decay: Decay = .constant, rate: Float, warmupSteps: Int = 0, steps: Int) throws(TrainingError) {
    guard rate > 0, rate <= Self.largestRate else { throw .unusableLearningRate(rate) }
    guard steps > 0 else { throw .unusableSetting(name: "the number of steps", found: "\(steps)", needed: "1 or more") }
    guard warmupSteps >= 0, decay == .constant || warmupSteps < steps else {
      throw .unusableSetting(name: "the warm-up", found: "\(warmupSteps) steps", needed: "shorter than the \(steps) steps of the run")
    }
    switch decay {
    case .constant, .linear, .cosine: break
    case .cosineWithRestarts(let cycles):
      try TrainingError.check("the number of cycles", Double(cycles), "from 1 to the number of steps") { $0 >= 1 && $0 <= Double(steps) }
    case .polynomial(let power):
      try TrainingError.check("the power", power, "above 0") { $0 > 0 }
      try TrainingError.check("the learning rate", Double(rate), "above \(Self.lastRate), where a polynomial decay ends") {
        $0 > Self.lastRate
      }
    }
    (self.decay, self.rate, self.warmupSteps, self.steps) = (decay, rate, warmupSteps, steps)
  }

  /// The rate of a step, counted from 0. Beyond the run's last step it is that of the end.
  public func rate(at step: Int) -> Float { Float(Double(rate) * factor(at: step)) }

  private func factor(at step: Int) -> Double {
    if step < warmupSteps { return max(0, Double(step)) / Double(warmupSteps) }
    let done = Double(min(step, steps) - warmupSteps) / Double(max(1, steps - warmupSteps))
    switch decay {
    case .constant:
      return 1
    case .linear:
      return 1 - done
    case .cosine:
      return 0.5 * (1 + cos(.pi * done))
    case .cosineWithRestarts(let cycles):
      guard done < 1 else { return 0 }
      return 0.5 * (1 + cos(.pi * (Double(cycles) * done).truncatingRemainder(dividingBy: 1)))
    case .polynomial(let power):
      let last = Self.lastRate / Double(rate)
      return (1 - last) * pow(1 - done, power) + last
    }
  }
}
