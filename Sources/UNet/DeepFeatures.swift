import LatentDiffusionComponents
import Tensor

/// The deep features that passes with step caching take from whole ones before.
enum DeepFeatures {
  /// Their names in a memory: of the last whole pass, of the one before, and the timesteps of both.
  private static let (last, before, times) = ("deep_features", "deep_features.before", "deep_features.timesteps")

  /// Those of the last whole pass, or the continuation of the last two. Nil where there are none yet.
  static func at(_ timestep: Float, in memory: PassMemory) -> Tensor? {
    guard let last = memory.kept[last] else { return nil }
    guard let before = memory.kept[before], let times = memory.kept[times]?.elements, before.shape == last.shape, times.count == 2,
      times[0] != times[1]
    else { return last }
    let part = (timestep - times[1]) / (times[1] - times[0])
    return last + part * (last - before)
  }

  /// Keeps those of a whole pass; nil: there are none.
  static func keep(_ features: Tensor?, at timestep: Float, in memory: inout PassMemory) {
    if memory.shortcuts.stepCaching?.order == 1, let known = memory.kept[last], let times = memory.kept[times]?.elements.last {
      memory.kept[before] = known
      memory.kept[Self.times] = Tensor([times, timestep], shape: [2])
    } else {
      memory.kept[before] = nil
      memory.kept[times] = memory.shortcuts.stepCaching?.order == 1 ? Tensor([timestep], shape: [1]) : nil
    }
    memory.kept[last] = features
  }
}
