import Tensor

/// Away from a prediction without the picture, towards one with it, by a scale that grows from frame to frame. Source: Blattmann et al. 2023
/// (arXiv:2311.15127), section 4.3; diffusers' `StableVideoDiffusionPipeline`.
public struct FrameGuidance: Guidance {
  /// w of the first frame.
  public var first: Float
  /// w of the last frame.
  public var last: Float

  /// - Parameters:
  ///   - first: w of the first frame.
  ///   - last: w of the last frame.
  public init(first: Float, last: Float) { (self.first, self.last) = (first, last) }

  public var rows: [GuidanceRow] { [GuidanceRow(.negativePrompt, seesPicture: false), GuidanceRow(.prompt)] }

  public func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    let (without, with) = (predictions[0], predictions[1]), frames = with.shape[1]
    let (low, high) = (without.framesAsPictures, with.framesAsPictures)
    let guided = (0..<low.shape[0]).map { row in
      let (from, to) = (low.rows(row..<row + 1), high.rows(row..<row + 1))
      return from + scale(row % frames, of: frames) * (to - from)
    }
    return Tensor.concatenated(guided, axis: 0).reshaped(with.shape)
  }

  /// As `torch.linspace` has it, which counts from the nearer end.
  private func scale(_ frame: Int, of frames: Int) -> Float {
    guard frames > 1 else { return first }
    let step = (last - first) / Float(frames - 1)
    return frame < frames / 2 ? first + step * Float(frame) : last - step * Float(frames - 1 - frame)
  }
}
