import Tensor

/// Away from the negative prompt, towards the prompt. Source: Ho and Salimans 2022 (arXiv:2207.12598), with w as in Imagen's equation 2.
public struct ClassifierFreeGuidance: Guidance {
  /// w: 1 is the prompt's prediction alone.
  public var scale: Float
  /// How much of the spread of the prompt's prediction is restored, 0…1 (`guidance_rescale`, section 3.4 of arXiv:2305.08891).
  public var rescale: Float

  /// - Parameters:
  ///   - scale: w.
  ///   - rescale: 0…1.
  public init(scale: Float, rescale: Float = 0) { (self.scale, self.rescale) = (scale, rescale) }

  public var rows: [GuidanceRow] { [GuidanceRow(.negativePrompt), GuidanceRow(.prompt)] }

  public func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    let (negative, text) = (predictions[0], predictions[1])
    return (negative + scale * (text - negative)).rescaled(to: text, by: rescale)
  }
}

extension Tensor {
  /// Guidance spreads the prediction; this takes a part of it back, from 0 for none to 1 for all (`rescale_noise_cfg`).
  func rescaled(to text: Tensor, by part: Float) -> Tensor {
    guard part > 0 else { return self }
    let pictures = (0..<shape[0]).map { row in
      let (guided, text) = (rows(row..<row + 1), text.rows(row..<row + 1))
      // A prediction without any spread has nothing to take back.
      let spread = guided.standardDeviation
      guard spread > 0 else { return guided }
      return part * (guided * (text.standardDeviation / spread)) + (1 - part) * guided
    }
    return Tensor.concatenated(pictures, axis: 0)
  }

  /// Over all elements, with n - 1 in the denominator, as `torch.std` has it.
  fileprivate var standardDeviation: Float {
    let values = elements.map(Double.init)
    guard values.count > 1 else { return 0 }
    let mean = values.reduce(0, +) / Double(values.count)
    let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    return Float((squares / Double(values.count - 1)).squareRoot())
  }
}
