/// Some frames of a clip, and how much what is computed of them counts where windows overlap.
public struct FrameWindow: Sendable, Hashable {
  /// Numbers of frames of the clip, from 0.
  public let frames: [Int]
  /// For each of the frames. For a frame of the clip, those of all windows add up to 1 as a rule.
  public let weights: [Float]

  /// - Precondition: there is a weight for each frame.
  public init(_ frames: [Int], weights: [Float]) {
    precondition(frames.count == weights.count, "\(frames.count) frames have \(weights.count) weights.")
    (self.frames, self.weights) = (frames, weights)
  }
}

extension Tensor {
  /// Zeros to which windows are added. They have no memory where the other tensor has none because it is only counted.
  public static func zeros(_ shape: Shape, like other: Tensor) -> Tensor { counted(shape, like: [other]) ?? Tensor(shape: shape) }

  /// The frames of a window: `[N, F, …]` → `[N, window.frames.count, …]`.
  /// - Precondition: the clips have these frames.
  /// - Throws: what the engine throws.
  public func frames(_ window: FrameWindow, in context: ExecutionContext) throws -> Tensor {
    let (clips, count) = (shape[0], shape[1]), frame = Array(shape.dimensions.dropFirst(2))
    let places = (0..<clips).flatMap { clip in window.frames.map { clip * count + $0 } }
    return try reshaped(Shape([clips * count] + frame)).rows(at: places, in: context)
      .reshaped(Shape([clips, window.frames.count] + frame))
  }

  /// Adds what was computed of a window's frames to those frames, times their weights.
  ///
  /// - Parameter part: `[N, window.frames.count, …]`, added to `[N, F, …]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public mutating func addFrames(_ part: Tensor, of window: FrameWindow, in context: ExecutionContext) throws {
    precondition(
      shape.rank >= 2 && part.shape.dimensions == [shape[0], window.frames.count] + shape.dimensions.dropFirst(2)
        && window.frames.allSatisfy { (0..<shape[1]).contains($0) },
      "\(part.shape) are no frames \(window.frames) of \(shape).")
    guard !part.isCounted, !isCounted else { return }
    if !isKnownUniquelyReferenced(&storage) { self = rows(0..<shape[0]) }
    let (clips, count, frames) = (shape[0], shape[1], window.frames), size = part.count / max(clips * frames.count, 1)
    let (sum, source) = (mutablePointer, part.pointer)
    // A frame may stand in a window twice, so a task has all of an element's places in a window.
    let runs = max(1, (size + Self.runLength - 1) / Self.runLength)
    try context.parallel(clips * runs) { task in
      let (clip, run) = task.quotientAndRemainder(dividingBy: runs)
      let elements = run * Self.runLength..<min(size, (run + 1) * Self.runLength)
      for (place, (frame, weight)) in Swift.zip(frames, window.weights).enumerated() where weight != 0 {
        let target = sum + (clip * count + frame) * size, part = source + (clip * frames.count + place) * size
        for index in elements { target[index] += weight * part[index] }
      }
    }
  }

  /// Elements of a frame in a task.
  private static let runLength = 1 << 14
}
