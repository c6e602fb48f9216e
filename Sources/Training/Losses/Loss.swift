import Tensor

/// A loss and its gradient with respect to what was predicted.
public struct Loss: Sendable {
  /// The loss, finite.
  public let value: Double
  /// In the shape of the prediction.
  public let gradient: Tensor

  /// - Throws: `TrainingError.lossNotFinite`.
  init(_ value: Double, gradient: Tensor) throws(TrainingError) {
    guard value.isFinite else { throw .lossNotFinite }
    (self.value, self.gradient) = (value, gradient)
  }

  /// The sum of two losses of the same prediction, the second one weighted.
  /// - Throws: `TrainingError` where the shapes differ, or the sum is not finite.
  public func adding(_ other: Loss, weight: Double = 1, in context: ExecutionContext) throws(TrainingError) -> Loss {
    try TrainingError.check("The gradient of the other loss", other.gradient.shape, gradient.shape)
    let factor = Float(weight)
    var sum = gradient
    sum.update(reading: [other.gradient], in: context) { run in
      let (sum, other) = (run.target(0), run.source(0))
      for i in 0..<run.count { sum[i] += factor * other[i] }
    }
    return try Loss(value + weight * other.value, gradient: sum)
  }
}

/// A loss of each element's error e = prediction − target, of which the mean is taken.
public enum ElementLoss: Sendable, Equatable {
  /// e². Source: PyTorch's `mse_loss`.
  case meanSquared
  /// |e|, with a gradient of 0 at 0. Source: PyTorch's `l1_loss`.
  case meanAbsolute
  /// 2c (√(e² + c²) − c): e² where e is small against c, 2c |e| where it is large. Source: the loss `huber` of diffusers' training scripts.
  case huber(c: Double)
  /// 2 (√(e² + c²) − c): 2 |e| where e is large. Source: the loss `smooth_l1` of diffusers' training scripts.
  case smoothAbsolute(c: Double)

  /// The mean loss.
  /// - Throws: `TrainingError.wrongShape`, `.unusableSetting` for a c that is not above 0, `.lossNotFinite`.
  public func callAsFunction(_ prediction: Tensor, _ target: Tensor, in context: ExecutionContext) throws(TrainingError) -> Loss {
    try check()
    try TrainingError.check("The target", target.shape, prediction.shape)
    let share = 1 / Double(max(prediction.count, 1))
    return try Loss(
      share * sum(prediction, target, in: context), gradient: gradient(prediction, target, scale: share, in: context))
  }

  /// - Throws: `TrainingError.unusableSetting` for a c that is not above 0.
  func check() throws(TrainingError) {
    switch self {
    case .meanSquared, .meanAbsolute: break
    case .huber(let c), .smoothAbsolute(let c): try TrainingError.check("the loss's c", c, "above 0 in single precision") { Float($0) > 0 }
    }
  }

  /// The sum of all elements' losses.
  func sum(_ prediction: Tensor, _ target: Tensor, in context: ExecutionContext) -> Double {
    func sum(_ loss: (Double) -> Double) -> Double {
      Tensor.sum(over: [[prediction], [target]], in: context) { run in
        let (prediction, target) = (run.source(0), run.source(1))
        return (0..<run.count).reduce(0.0) { $0 + loss(Double(prediction[$1] - target[$1])) }
      }
    }
    return switch self {
    case .meanSquared: sum { $0 * $0 }
    case .meanAbsolute: sum { abs($0) }
    case .huber(let c): sum { 2 * c * (($0 * $0 + c * c).squareRoot() - c) }
    case .smoothAbsolute(let c): sum { 2 * (($0 * $0 + c * c).squareRoot() - c) }
    }
  }

  /// The gradients of all elements' losses, each times `scale`.
  func gradient(_ prediction: Tensor, _ target: Tensor, scale: Double, in context: ExecutionContext) -> Tensor {
    var gradient = prediction
    func fill(_ slope: (Float) -> Float) {
      gradient.update(reading: [target], in: context) { run in
        let (place, target) = (run.target(0), run.source(0))
        for i in 0..<run.count { place[i] = slope(place[i] - target[i]) }
      }
    }
    switch self {
    case .meanSquared:
      let factor = Float(2 * scale)
      fill { factor * $0 }
    case .meanAbsolute:
      let factor = Float(scale)
      fill { $0 > 0 ? factor : $0 < 0 ? -factor : 0 }
    case .huber(let c), .smoothAbsolute(let c):
      let factor = Float(self == .huber(c: c) ? 2 * c * scale : 2 * scale), square = Float(c * c)
      fill { factor * $0 / ($0 * $0 + square).squareRoot() }
    }
    return gradient
  }
}
