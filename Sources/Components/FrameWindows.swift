import Tensor

/// How clips of more frames than a predictor was trained on are drawn: in windows of frames that overlap.
///
/// A clip of one window is the same as without windows.
public struct FrameWindows: Sendable, Hashable {
  /// What is computed window by window.
  public enum Method: Sendable, Hashable {
    /// Whole passes. What they predict for a frame is averaged. In each step the windows begin elsewhere, so that no frame is at an edge in all of them.
    ///
    /// Source: the uniform context scheduler of AnimateDiff's `animatediff-cli`, which shifts windows by the step's number with its bits reversed.
    case passes
    /// The same on a ring: the last frames are in windows with the first ones, so that a clip that is shown again and again has no jump.
    case loopedPasses
    /// The attention of frames to one another alone. Everything else sees each frame once in a pass.
    ///
    /// Source: Qiu et al. 2023, "FreeNoise" (arXiv:2310.15169), diffusers' `FreeNoiseTransformerBlock` with the weighting scheme `pyramid`.
    case freeNoise
  }

  /// Frames of a window (`context_length`).
  public let length: Int
  /// Frames from the beginning of a window to that of the next one (`context_stride` of FreeNoise).
  public let stride: Int
  /// What is computed window by window.
  public let method: Method

  /// - Parameters:
  ///   - length: frames of a window.
  ///   - stride: frames from the beginning of a window to that of the next one. Nil: 4 for FreeNoise, as in diffusers; for passes three quarters of a window,
  ///     so that 4 of 16 frames overlap.
  ///   - method: what is computed window by window.
  /// - Throws: `ComponentError.outOfRange` for windows without frames, and for strides that leave frames out or stand still.
  public init(length: Int = 16, stride: Int? = nil, method: Method = .passes) throws(ComponentError) {
    guard length > 0 else {
      throw .outOfRange(component: "A clip in windows", option: "a length", value: "\(length)", allowed: "of at least one frame")
    }
    let stride = stride ?? (method == .freeNoise ? min(4, length) : max(1, length - length / 4))
    guard (1...length).contains(stride) else {
      throw .outOfRange(
        component: "A clip in windows", option: "a stride", value: "\(stride)", allowed: "from 1 to the windows' length, \(length)")
    }
    (self.length, self.stride, self.method) = (length, stride, method)
  }

  /// How many frames at the end of a clip lie in an incomplete window of FreeNoise, whose weights the reference does not make add up to 1.
  public func incompleteFrames(of frames: Int) -> Int {
    method == .freeNoise && frames > length ? (frames - length) % stride : 0
  }

  /// The windows of a pass.
  ///
  /// - Parameters:
  ///   - frames: of the clip, at least as many as a window has.
  ///   - pass: its number, from 0.
  public func windows(of frames: Int, pass: Int) -> [FrameWindow] {
    guard frames > length else { return [FrameWindow(Array(0..<frames), weights: Array(repeating: 1, count: frames))] }
    return switch method {
    case .passes, .loopedPasses: averaged(starts(of: frames, pass: pass), of: frames)
    case .freeNoise: overlapping(frames)
    }
  }

  /// Which of the frames of noise that was drawn each frame has: those after the first window have the noise of frames before them, in another order, so that
  /// they belong to the same clip. Source: diffusers' `_prepare_latents_free_noise` with `shuffle_context`.
  ///
  /// - Parameters:
  ///   - frames: of the clip.
  ///   - noise: draws the orders.
  public func noiseOrder(_ frames: Int, drawing noise: inout any NoiseSource) -> [Int] {
    var order = Array(0..<frames)
    for frame in Swift.stride(from: length, to: frames, by: stride) {
      let start = frame - length
      for (place, source) in noise.permutation(min(stride, frames - start)).prefix(frames - frame).enumerated() {
        order[frame + place] = order[start + source]
      }
    }
    return order
  }

  /// Where windows begin, shifted by a part of the stride.
  private func starts(of frames: Int, pass: Int) -> [Int] {
    let shift = Int(Double(stride) * Self.halving(pass))
    guard method == .passes else {
      return Swift.stride(from: shift, to: shift + frames, by: stride).map { $0 % frames }
    }
    // Windows that stick out are pushed back into the clip.
    let last = frames - length
    let inside = Swift.stride(from: -shift, to: last + stride, by: stride).map { min(max($0, 0), last) }
    return inside.enumerated().filter { $0 == 0 || inside[$0 - 1] != $1 }.map(\.element)
  }

  /// A number with its bits in the opposite order, as a part of 1: 0, ½, ¼, ¾, …
  private static func halving(_ pass: Int) -> Double {
    var (rest, part, bit) = (max(0, pass), 0.0, 0.5)
    while rest > 0 {
      if rest & 1 == 1 { part += bit }
      (rest, bit) = (rest >> 1, bit / 2)
    }
    return part
  }

  /// 1, 2, … up to the middle of a window and down again: frames in the middle are seen with the most neighbours.
  private var pyramid: [Float] { (0..<length).map { Float(min($0, length - 1 - $0) + 1) } }

  /// Windows that begin there, with weights that add up to 1 for each frame.
  private func averaged(_ starts: [Int], of frames: Int) -> [FrameWindow] {
    let windows = starts.map { start in (start..<start + length).map { $0 % frames } }
    var sums = Array(repeating: Float(0), count: frames)
    for window in windows { for (frame, weight) in zip(window, pyramid) { sums[frame] += weight } }
    return windows.map { window in FrameWindow(window, weights: zip(window, pyramid).map { $1 / sums[$0] }) }
  }

  /// The windows of FreeNoise. Where the last one would stick out, one more covers the end of the clip; of that one only the frames that no other window has
  /// count, and they are divided by the weight of the first of them, as the reference does it. Where `frames - length` is a multiple of the stride, there is
  /// no such window.
  private func overlapping(_ frames: Int) -> [FrameWindow] {
    let starts = Array(Swift.stride(from: 0, through: frames - length, by: stride)), pyramid = pyramid
    let covered = starts[starts.count - 1] + length, rest = frames - covered
    var windows = averaged(starts, of: covered)
    if rest > 0 {
      let weights = pyramid.enumerated().map { $0 < length - rest ? 0 : $1 / pyramid[length - rest] }
      windows.append(FrameWindow(Array(frames - length..<frames), weights: weights))
    }
    return windows
  }
}
