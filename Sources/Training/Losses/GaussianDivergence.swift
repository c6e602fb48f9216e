import Foundation
import LatentDiffusionComponents
import Tensor

/// What an autoencoder's encoder is trained with: the distance of its distribution from a standard normal one, and the way of a gradient back
/// through the drawing of latents. Source: diffusers' `DiagonalGaussianDistribution`, whose logarithm of the variance is clamped to -30…20; beyond
/// those the gradient is 0.
extension DiagonalGaussian {
  /// The range to which the logarithm of the variance is clamped.
  private static let range: ClosedRange<Float> = -30...20

  /// A gradient with respect to both halves of what the encoder gives.
  public struct Gradient: Sendable {
    /// `[N, h, w, C]`.
    public let mean: Tensor
    /// `[N, h, w, C]`.
    public let logVariance: Tensor
  }

  /// The Kullback–Leibler divergence from a standard normal distribution, ½ Σ (μ² + σ² − 1 − ln σ²) of each picture, and the mean of the pictures.
  ///
  /// - Returns: the mean, and its gradient.
  /// - Throws: `TrainingError.lossNotFinite`, `.wrongShape` where both halves do not have one shape.
  public func divergence(in context: ExecutionContext) throws(TrainingError) -> (value: Double, gradient: Gradient) {
    try TrainingError.check("The logarithm of the variance", logVariance.shape, mean.shape)
    let share = 1 / Double(max(mean.shape.dimensions.first ?? 1, 1))
    let sum = Tensor.sum(over: [[mean], [logVariance]], in: context) { run in
      let (mean, logVariance) = (run.source(0), run.source(1))
      return (0..<run.count).reduce(0.0) { sum, i in
        let (m, l) = (Double(mean[i]), Double(Self.clamped(logVariance[i])))
        return sum + (m * m + exp(l) - 1 - l)
      }
    }
    guard sum.isFinite else { throw .lossNotFinite }
    let half = Float(0.5 * share), whole = Float(share)
    var (meanGradient, logGradient) = (mean, logVariance)
    meanGradient.update(in: context) { run in
      let m = run.target(0)
      for i in 0..<run.count { m[i] *= whole }
    }
    logGradient.update(in: context) { run in
      let l = run.target(0)
      for i in 0..<run.count { l[i] = Self.range.contains(l[i]) ? half * (exp(l[i]) - 1) : 0 }
    }
    return (0.5 * share * sum, Gradient(mean: meanGradient, logVariance: logGradient))
  }

  /// Takes a gradient back through `sample(noise:)`: ∂z/∂μ = 1, ∂z/∂ln σ² = ½ σ ε.
  ///
  /// - Parameters:
  ///   - gradient: with respect to the sampled latents, `[N, h, w, C]`.
  ///   - noise: what the latents were sampled with.
  /// - Throws: `TrainingError.wrongShape`.
  public func gradient(ofSample gradient: Tensor, noise: Tensor, in context: ExecutionContext) throws(TrainingError) -> Gradient {
    try TrainingError.check("The gradient of the latents", gradient.shape, mean.shape)
    try TrainingError.check("The noise of the latents", noise.shape, mean.shape)
    try TrainingError.check("The logarithm of the variance", logVariance.shape, mean.shape)
    var logGradient = logVariance
    logGradient.update(reading: [gradient, noise], in: context) { run in
      let (l, gradient, noise) = (run.target(0), run.source(0), run.source(1))
      for i in 0..<run.count {
        l[i] = Self.range.contains(l[i]) ? 0.5 * exp(0.5 * l[i]) * noise[i] * gradient[i] : 0
      }
    }
    return Gradient(mean: gradient, logVariance: logGradient)
  }

  private static func clamped(_ logarithm: Float) -> Float { min(max(logarithm, range.lowerBound), range.upperBound) }
}
