/// How the steps of inference are spread over the timesteps of training (`timestep_spacing`; table 2 of arXiv 2305.08891).
public enum TimestepSpacing: String, CaseIterable, Sendable {
  /// From the last timestep to the first, both included.
  case linspace
  /// Multiples of T / steps from 0 (plus `steps_offset`): the last timestep is left out.
  case leading
  /// Multiples of T / steps from the end: the first timesteps are left out.
  case trailing
}

/// The timesteps of a spacing, from noise to picture.
///
/// Source: `set_timesteps` of diffusers' schedulers. Where T / steps is no exact number, NumPy's `arange`, and so diffusers, can yield
/// one timestep too many with trailing spacing, a −1 (61 steps of 1000, for example); here there are as many as asked for.
struct SpacedTimesteps {
  let spacing: TimestepSpacing
  /// `num_train_timesteps`: T.
  let trainTimesteps: Int
  /// `steps_offset`.
  let offset: Int

  init(_ configuration: SchedulerConfiguration, default standard: TimestepSpacing, trainTimesteps: Int) throws(SchedulerError) {
    spacing = try configuration.choice(.timestepSpacing, configuration.timestepSpacing, default: standard)
    offset = try configuration.count(.stepsOffset, configuration.stepsOffset, default: 0, in: 0...trainTimesteps)
    self.trainTimesteps = trainTimesteps
  }

  private init(_ spacing: TimestepSpacing, trainTimesteps: Int, offset: Int) {
    (self.spacing, self.trainTimesteps, self.offset) = (spacing, trainTimesteps, offset)
  }

  /// The same table with another spacing.
  func spread(_ spacing: TimestepSpacing) -> SpacedTimesteps { SpacedTimesteps(spacing, trainTimesteps: trainTimesteps, offset: offset) }

  /// Timesteps that reach 0 (linspace, leading) with the last step; whole where `rounded`.
  func reachingZero(steps: Int, rounded: Bool, isDouble: Bool = false) -> [Double] {
    switch spacing {
    case .linspace:
      let timesteps = equalSteps(from: 0, to: Double(trainTimesteps - 1), count: steps).reversed()
      return timesteps.map { rounded ? $0.rounded(.toNearestOrEven) : isDouble ? $0 : Double(Float($0)) }
    case .leading: return leading(steps: steps, ratio: trainTimesteps / steps)
    case .trailing: return trailing(steps: steps, last: trainTimesteps)
    }
  }

  /// Whole timesteps that stop one short of 0 (linspace, leading), for solvers that go on to σ = 0 themselves.
  /// - Parameter last: the number of timesteps in use, from the first.
  func stoppingBeforeZero(steps: Int, last: Int) -> [Double] {
    switch spacing {
    case .linspace:
      equalSteps(from: 0, to: Double(last - 1), count: steps + 1).dropFirst().reversed().map { $0.rounded(.toNearestOrEven) }
    case .leading: Array(leading(steps: steps + 1, ratio: last / (steps + 1)).dropLast())
    case .trailing: trailing(steps: steps, last: last)
    }
  }

  /// Whole timesteps from the first up, which leave out the last of a spacing, for solvers that run from a picture to noise.
  func rising(steps: Int, last: Int) -> [Double] {
    switch spacing {
    case .linspace: equalSteps(from: 0, to: Double(last - 1), count: steps + 1).dropLast().map { $0.rounded(.toNearestOrEven) }
    case .leading: leading(steps: steps, ratio: last / (steps + 1)).reversed()
    case .trailing: trailing(steps: steps, last: last).reversed()
    }
  }

  private func leading(steps: Int, ratio: Int) -> [Double] {
    (0..<steps).reversed().map { Double($0 * ratio + offset) }
  }

  private func trailing(steps: Int, last: Int) -> [Double] {
    // NumPy's arange adds multiples of the rounded difference of its first two values.
    let start = Double(last)
    let difference = (start - Double(trainTimesteps) / Double(steps)) - start
    return (0..<steps).map { (start + Double($0) * difference).rounded(.toNearestOrEven) }.filter { $0 >= 1 }.map { $0 - 1 }
  }
}

/// numpy.linspace.
func equalSteps(from start: Double, to end: Double, count: Int) -> [Double] {
  guard count > 1 else { return Array(repeating: start, count: count) }
  let step = (end - start) / Double(count - 1)
  return (0..<count).map { $0 == count - 1 ? end : Double($0) * step + start }
}
