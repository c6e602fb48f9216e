import Tensor

/// Classifier-free guidance whose step is divided into a part along the prompt's prediction, which saturates colours, and one across it.
///
/// Source: Sadat, Hilliges and Weber 2024 (arXiv:2410.02416), diffusers' `AdaptiveProjectedGuidance`.
public struct AdaptiveProjectedGuidance: Guidance {
  /// w: 1 is the prompt's prediction alone.
  public var scale: Float
  /// η: how much of the part along the prediction counts.
  public var eta: Float
  /// β: how much of the steps before is added to a step; negative in the paper. Nil: nothing.
  public var momentum: Float?
  /// r: the most length that a step has; 0: any.
  public var normThreshold: Float
  /// How much of the spread of the prompt's prediction is restored, 0…1.
  public var rescale: Float
  /// The sum of the steps before, each with its momentum.
  private var average: Tensor?

  /// - Parameters:
  ///   - scale: w.
  ///   - eta: η.
  ///   - momentum: β.
  ///   - normThreshold: r.
  ///   - rescale: 0…1.
  public init(scale: Float, eta: Float = 1, momentum: Float? = nil, normThreshold: Float = 15, rescale: Float = 0) {
    (self.scale, self.eta, self.momentum) = (scale, eta, momentum)
    (self.normThreshold, self.rescale) = (normThreshold, rescale)
  }

  public var rows: [GuidanceRow] { scale == 1 ? [GuidanceRow(.prompt)] : [GuidanceRow(.negativePrompt), GuidanceRow(.prompt)] }

  public mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    guard predictions.count == 2 else { return predictions[0] }
    let (negative, text) = (predictions[0], predictions[1])
    var difference = text - negative
    if let momentum {
      // What a damaged place brings along does not count.
      if let average, average.shape == difference.shape { difference = difference + momentum * average }
      average = difference
    }
    let pictures = (0..<text.shape[0]).map { row in
      let rows = row..<row + 1
      return projected(difference.rows(rows), along: text.rows(rows))
    }
    return (negative + scale * Tensor.concatenated(pictures, axis: 0)).rescaled(to: text, by: rescale)
  }

  /// ∆ across the prediction and η times ∆ along it, of one picture.
  private func projected(_ difference: Tensor, along prediction: Tensor) -> Tensor {
    let delta = difference.elements.map(Double.init), direction = prediction.elements.map(Double.init)
    func product(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    let length = product(delta, delta).squareRoot()
    let shortened = normThreshold > 0 && length > 0 ? min(1, Double(normThreshold) / length) : 1
    // A prediction of nothing but zeros has no direction.
    let squared = product(direction, direction), along = squared > 0 ? product(delta, direction) / squared : 0
    let values = zip(delta, direction).map { Float(shortened * ($0 + Double(eta - 1) * along * $1)) }
    return Tensor(values, shape: difference.shape)
  }
}
