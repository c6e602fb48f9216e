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
    let guided = negative + scale * (text - negative)
    return rescale > 0 ? rescaled(guided, to: text) : guided
  }

  /// Guidance spreads the prediction; this takes a part of it back (`rescale_noise_cfg`).
  private func rescaled(_ guided: Tensor, to text: Tensor) -> Tensor {
    let rows = (0..<guided.shape[0]).map { row in
      let (guided, text) = (guided.rows(row..<row + 1), text.rows(row..<row + 1))
      // A prediction without any spread has nothing to take back.
      let spread = guided.standardDeviation
      guard spread > 0 else { return guided }
      return rescale * (guided * (text.standardDeviation / spread)) + (1 - rescale) * guided
    }
    return Tensor.concatenated(rows, axis: 0)
  }
}

extension Tensor {
  /// Over all elements, with n - 1 in the denominator, as `torch.std` has it.
  fileprivate var standardDeviation: Float {
    let values = elements.map(Double.init)
    guard values.count > 1 else { return 0 }
    let mean = values.reduce(0, +) / Double(values.count)
    let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    return Float((squares / Double(values.count - 1)).squareRoot())
  }
}
