import Tensor

/// Takes pictures into latent space and back.
public protocol LatentAutoencoder: Sendable {
  /// Pixels a side for each latent a side: 8 for Stable Diffusion.
  var spatialScale: Int { get }
  /// Channels of the latents.
  var latentChannels: Int { get }
  /// What latents are multiplied by before they meet the noise predictor (`scaling_factor`).
  var latentScale: Float { get }
  /// What is subtracted before that (`shift_factor`); 0 for Stable Diffusion.
  var latentShift: Float { get }

  /// - Parameter image: `[N, H, W, 3]`, -1…1, both sides multiples of `spatialScale`.
  /// - Returns: a distribution of `[N, H/scale, W/scale, latentChannels]`, unscaled.
  /// - Throws: `CancellationError`; `ComponentError` where the shape does not fit.
  func encode(_ image: Tensor, in context: ExecutionContext) throws -> DiagonalGaussian

  /// - Parameter latents: `[N, h, w, latentChannels]`, unscaled.
  /// - Returns: `[N, h·scale, w·scale, 3]`, about -1…1, not clamped.
  /// - Throws: `CancellationError`; `ComponentError` where the shape does not fit.
  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor
}

extension LatentAutoencoder {
  public var latentShift: Float { 0 }
}

/// A normal distribution with a mean and a variance for each element: what the encoder knows of a picture.
///
/// Source: diffusers' `DiagonalGaussianDistribution`.
public struct DiagonalGaussian: Sendable {
  /// `[N, h, w, C]`.
  public let mean: Tensor
  /// `[N, h, w, C]`, the logarithm of the variance, clamped to -30…20.
  public let logVariance: Tensor

  /// - Parameters:
  ///   - mean: `[N, h, w, C]`.
  ///   - logVariance: of the same shape; it is clamped.
  public init(mean: Tensor, logVariance: Tensor) {
    self.mean = mean
    self.logVariance = logVariance.clamped(to: -30...20)
  }

  /// The most likely latents, `[N, h, w, C]`: the mean.
  public var mode: Tensor { mean }

  /// mean + exp(logVariance / 2) · noise.
  /// - Parameter noise: standard normal, the shape of the mean.
  public func sample(noise: Tensor) -> Tensor {
    mean + (0.5 * logVariance).exponential() * noise
  }
}
