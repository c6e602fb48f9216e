extension NoiseTable {
  /// The timesteps of a model that was distilled from a teacher's `original_inference_steps`: some of the teacher's own, from noise to picture.
  ///
  /// Source: `set_timesteps` of diffusers' `LCMScheduler` and `TCDScheduler`.
  /// - Parameter strength: above 0, at most 1: how far into the noise the first timestep lies, for image-to-image that makes all its steps.
  func consistencyTimesteps(
    _ configuration: SchedulerConfiguration, steps: Int, strength: Double = 1, scheduler: SchedulerKind
  ) throws(SchedulerError) -> [Int] {
    guard strength > 0, strength <= 1 else {
      throw .unusableValue(key: "strength", found: "\(strength)", needed: "above 0 and at most 1")
    }
    if let custom = try configuration.customTimesteps(steps: steps, trained: trainTimesteps) {
      guard custom.allSatisfy({ $0 == $0.rounded() }) else {
        throw .unusableSetting("timesteps", found: "a list with fractions", needed: "whole numbers")
      }
      let kept = min(Int(Double(custom.count) * strength), custom.count)
      guard kept > 0 else { throw .unusableSteps(steps, scheduler: scheduler, needed: "more, so that the strength leaves one") }
      return custom.suffix(kept).map { Int($0) }
    }
    let originalSteps = try configuration.count(
      .originalInferenceSteps, configuration.originalInferenceSteps, default: 50, in: 1...trainTimesteps)
    let stride = trainTimesteps / originalSteps
    let teacher = (1...originalSteps).prefix(Int(Double(originalSteps) * strength)).map { $0 * stride - 1 }
    guard steps >= 1, steps <= teacher.count else {
      throw .unusableSteps(
        steps, scheduler: scheduler,
        needed: "1 to \(teacher.count), the steps of its teacher (original_inference_steps) that the strength leaves")
    }
    // Places in the teacher's table: floor(i · count / steps).
    let step = Double(teacher.count) / Double(steps)
    return (0..<steps).map { teacher[teacher.count - 1 - Int(Double($0) * step)] }
  }
}
