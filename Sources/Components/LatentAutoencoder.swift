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
  /// - Returns: latents `[N, H/scale, W/scale, latentChannels]`, unscaled, or a distribution of them.
  /// - Throws: `CancellationError`; `ComponentError` where the shape does not fit.
  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture

  /// - Parameter latents: `[N, h, w, latentChannels]`, unscaled.
  /// - Returns: `[N, h·scale, w·scale, 3]`, about -1…1, not clamped.
  /// - Throws: `CancellationError`; `ComponentError` where the shape does not fit.
  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Whether the frames of a clip see one another while they are decoded; they do not without an implementation.
  var decodesClips: Bool { get }

  /// Some frames of a clip, in a row. Without an implementation, each is a picture by itself.
  ///
  /// - Parameter latents: `[F, h, w, latentChannels]`, unscaled.
  /// - Returns: `[F, h·scale, w·scale, 3]`, about -1…1, not clamped.
  /// - Throws: as `decode`.
  func decode(framesOfClip latents: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Whether decoding looks at a picture of which a part is kept; it does not without an implementation.
  var decodesKeptPictures: Bool { get }

  /// The same beside a picture of which a part is kept. Without an implementation, as if there were none.
  ///
  /// - Parameter picture: of the decoded pictures' size, one for each.
  /// - Throws: as `decode`.
  func decode(_ latents: Tensor, keeping picture: KeptPicture, in context: ExecutionContext) throws -> Tensor
}

extension LatentAutoencoder {
  public var latentShift: Float { 0 }
  public var decodesClips: Bool { false }
  public var decodesKeptPictures: Bool { false }

  public func decode(framesOfClip latents: Tensor, in context: ExecutionContext) throws -> Tensor { try decode(latents, in: context) }

  public func decode(_ latents: Tensor, keeping picture: KeptPicture, in context: ExecutionContext) throws -> Tensor {
    try decode(latents, in: context)
  }

  /// - Throws: `ComponentError` unless a picture is `[N, H, W, 3]` with sides that are multiples of `spatialScale`.
  public func checkPicture(_ image: Tensor) throws(ComponentError) {
    guard image.shape.rank == 4, image.shape[3] == 3, image.count > 0 else {
      throw .unexpectedShape(component: "The autoencoder", argument: "a picture", expected: "[N, H, W, 3]", found: image.shape)
    }
    for side in image.shape.dimensions[1..<3] where side % spatialScale != 0 {
      throw .indivisibleSide(component: "The autoencoder", side: side, multiple: spatialScale)
    }
  }

  /// What `encode` gives, with its shape checked.
  /// - Throws: what `encode` throws, and `ComponentError` where what it gives does not belong to the picture.
  public func checkedEncode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    let encoded = try encode(image, in: context)
    let expected: Shape = [image.shape[0], image.shape[1] / spatialScale, image.shape[2] / spatialScale, latentChannels]
    for shape in [encoded.mode.shape, encoded.gaussian?.logVariance.shape ?? expected] where shape != expected {
      throw ComponentError.unexpectedShape(
        component: "The pipeline", argument: "encoded pictures", expected: expected.description, found: shape)
    }
    return encoded
  }

  /// What `decode` gives, with its shape checked.
  /// - Parameter framesOfClip: whether the latents are frames of a clip, in a row.
  /// - Throws: what `decode` throws, and `ComponentError` where what it gives does not belong to the latents.
  public func checkedDecode(
    _ latents: Tensor, framesOfClip: Bool = false, keeping picture: KeptPicture? = nil, in context: ExecutionContext
  ) throws -> Tensor {
    let decoded =
      try picture.map { try decode(latents, keeping: $0, in: context) }
      ?? (framesOfClip ? decode(framesOfClip: latents, in: context) : decode(latents, in: context))
    let expected: Shape = [latents.shape[0], latents.shape[1] * spatialScale, latents.shape[2] * spatialScale, 3]
    guard decoded.shape == expected else {
      throw ComponentError.unexpectedShape(
        component: "The pipeline", argument: "decoded pictures", expected: expected.description, found: decoded.shape)
    }
    return decoded
  }

  /// - Throws: `ComponentError` unless latents are `[N, h, w, latentChannels]`.
  public func checkLatents(_ latents: Tensor) throws(ComponentError) {
    guard latents.shape.rank == 4, latents.shape[3] == latentChannels, latents.count > 0 else {
      throw .unexpectedShape(
        component: "The autoencoder", argument: "latents", expected: "[N, h, w, \(latentChannels)]", found: latents.shape)
    }
  }
}

/// A picture of which a part is kept, for decoders that look at it.
public struct KeptPicture: Sendable {
  /// `[N, H, W, 3]`, -1…1. What is new of it is not looked at.
  public let image: Tensor
  /// `[N, H, W, 1]`: 1 where something is new, 0 where the picture is kept.
  public let new: Tensor

  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, -1…1.
  ///   - new: `[N, H, W, 1]`, 1 where something is new and 0 elsewhere.
  public init(_ image: Tensor, new: Tensor) { (self.image, self.new) = (image, new) }
}

/// What an encoder knows of a picture. Source: diffusers' `retrieve_latents`, which draws numbers for a distribution alone.
public enum EncodedPicture: Sendable {
  /// Of autoencoders that were trained with noise on their latents (`AutoencoderKL`).
  case distribution(DiagonalGaussian)
  /// `[N, h, w, C]`, of all others (tiny and vector-quantised ones).
  case latents(Tensor)

  /// The distribution; nil of plain latents.
  public var gaussian: DiagonalGaussian? { if case .distribution(let gaussian) = self { gaussian } else { nil } }

  /// The most likely latents, `[N, h, w, C]`.
  public var mode: Tensor {
    switch self {
    case .distribution(let gaussian): gaussian.mean
    case .latents(let latents): latents
    }
  }

  /// Latents `[N, h, w, C]`, with noise drawn in the order of `[N, C, h, w]` where there is a distribution.
  public func sample(drawing noise: inout any NoiseSource) -> Tensor {
    switch self {
    case .distribution(let gaussian): gaussian.sample(noise: noise.normal(channelsLast: gaussian.mean.shape))
    case .latents(let latents): latents
    }
  }
}

/// A normal distribution with a mean and a variance for each element.
///
/// Source: diffusers' `DiagonalGaussianDistribution`.
public struct DiagonalGaussian: Sendable {
  /// `[N, h, w, C]`: the most likely latents.
  public let mean: Tensor
  /// `[N, h, w, C]`: the logarithm of the variance, as the network gives it.
  public let logVariance: Tensor

  /// - Parameters:
  ///   - mean: `[N, h, w, C]`.
  ///   - logVariance: of the same shape.
  public init(mean: Tensor, logVariance: Tensor) { (self.mean, self.logVariance) = (mean, logVariance) }

  /// mean + exp(logVariance / 2) · noise, with the logarithm clamped to -30…20.
  /// - Parameter noise: standard normal, the shape of the mean.
  public func sample(noise: Tensor) -> Tensor {
    mean + (0.5 * logVariance.clamped(to: -30...20)).exponential() * noise
  }
}
