import LatentDiffusionComponents
import Tensor

/// A walk between prompts and between seeds, of which a clip is made.
///
/// Text states are interpolated on a straight line and noise on a sphere, as diffusers' community pipeline `interpolate_stable_diffusion` does.
///
/// ```swift
/// let morph = try Morph([Morph.Keyframe("red apple", seed: 1, time: 0), Morph.Keyframe("lemon", seed: 2, time: 1)])
/// let walk = try await pipeline.walk(morph, frames: 24, like: GenerationRequest(""))
/// for range in walk.batches(of: 4) { images += try await pipeline.images(for: walk.request(range)) }
/// let clip = walk.frames.map { images[$0].image }
/// ```
public struct Morph: Sendable {
  /// What is drawn at a moment.
  public struct Keyframe: Sendable, Equatable {
    /// What the picture should show.
    public var prompt: Prompt
    /// What everything random follows from: the same picture as that of a request with this prompt and seed.
    public var seed: UInt64
    /// In any unit, since the walk as a whole takes as long as its frames do.
    public var time: Double

    /// What is drawn at a moment.
    public init(_ prompt: Prompt, seed: UInt64, time: Double) { (self.prompt, self.seed, self.time) = (prompt, seed, time) }
  }

  /// How the way from one keyframe to the next is gone.
  public enum Easing: String, Sendable, CaseIterable {
    /// x.
    case linear
    /// Slowly at first: x².
    case easeIn = "ease-in"
    /// Slowly at last: 1 - (1 - x)².
    case easeOut = "ease-out"
    /// Slowly at both ends: 3x² - 2x³.
    case easeInOut = "ease-in-out"

    /// The part of the way, 0…1, that lies behind after a part of the time.
    public func callAsFunction(_ x: Double) -> Double {
      switch self {
      case .linear: x
      case .easeIn: x * x
      case .easeOut: 1 - (1 - x) * (1 - x)
      case .easeInOut: x * x * (3 - 2 * x)
      }
    }
  }

  /// A point of the walk.
  public struct Place: Sendable, Hashable {
    /// The keyframe before it.
    public let keyframe: Int
    /// The part of the way to the next keyframe, 0…1.
    public let position: Double
  }

  /// At least two, each later than the one before.
  public let keyframes: [Keyframe]
  /// Between two keyframes.
  public let easing: Easing
  /// Whether the walk goes back to its beginning, so that a clip that is shown again and again has no jump.
  public let isPingPong: Bool

  /// - Throws: `GenerationError.outOfRange` where there are fewer than two keyframes, or times are not finite or do not ascend.
  public init(_ keyframes: [Keyframe], easing: Easing = .linear, isPingPong: Bool = false) throws(GenerationError) {
    guard keyframes.count >= 2 else {
      throw .outOfRange(name: "The number of keyframes", value: "\(keyframes.count)", allowed: "at least 2")
    }
    for (index, (keyframe, next)) in zip(keyframes, keyframes.dropFirst()).enumerated()
    where !(keyframe.time < next.time && (next.time - keyframe.time).isFinite) {
      throw .outOfRange(name: "The time of keyframe \(index + 2)", value: "\(next.time)", allowed: "later than \(keyframe.time)")
    }
    (self.keyframes, self.easing, self.isPingPong) = (keyframes, easing, isPingPong)
  }

  /// The places of a clip's frames, evenly spread over the time: from the first keyframe to the last, or there and back.
  ///
  /// A clip that goes back does not end where it began, since that is shown next.
  /// - Parameter count: at least 1.
  public func places(_ count: Int) -> [Place] {
    let last = isPingPong ? count / 2 : count - 1
    return (0..<count).map { frame in
      // The same numbers there and back, so that the places are equal.
      let step = isPingPong ? min(frame, count - frame) : frame
      return place(at: last > 0 ? Double(step) / Double(last) : 0)
    }
  }

  /// - Parameter part: of the time from the first keyframe to the last, 0…1.
  private func place(at part: Double) -> Place {
    let (start, end) = (keyframes[0].time, keyframes[keyframes.count - 1].time)
    guard part < 1 else { return Place(keyframe: keyframes.count - 2, position: 1) }
    let time = start + part * (end - start)
    let index = keyframes.indices.dropLast().last { keyframes[$0].time <= time } ?? 0
    let (before, after) = (keyframes[index].time, keyframes[index + 1].time)
    return Place(keyframe: index, position: easing(min(max((time - before) / (after - before), 0), 1)))
  }
}
