import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

/// The autoencoder of Stable Diffusion. Source: Rombach et al. 2022, diffusers' `AutoencoderKL`.
public struct AutoencoderKL: LatentAutoencoder, ModelComponent {
  /// The checked configuration.
  public let configuration: AutoencoderKLConfiguration
  private let encoder: Encoder
  private let decoder: Decoder
  private let quantConvolution: Convolution2D?
  private let postQuantConvolution: Convolution2D?

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: AutoencoderKLConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let shape = configuration.shape, channels = shape.latentChannels
    encoder = try Encoder(shape, outChannels: 2 * channels, weights: weights.ofEncoder)
    decoder = try Decoder(configuration.decoderShape, weights: weights["decoder"])
    quantConvolution =
      configuration.hasQuantConvolution ? try Convolution2D(2 * channels, 2 * channels, kernel: 1, weights: weights["quant_conv"]) : nil
    postQuantConvolution =
      configuration.hasPostQuantConvolution ? try Convolution2D(channels, channels, kernel: 1, weights: weights["post_quant_conv"]) : nil
  }

  public static var classNames: [String] { ["AutoencoderKL"] }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(AutoencoderKLConfiguration(json: json), weights: weights)
  }

  public var spatialScale: Int { configuration.spatialScale }
  public var latentChannels: Int { configuration.shape.latentChannels }
  public var latentScale: Float { configuration.scalingFactor }
  public var latentShift: Float { configuration.shiftFactor }

  public func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    try checkPicture(image)
    let encoded = try encoder(image, in: context)
    let moments = try quantConvolution?(encoded, in: context) ?? encoded
    return .distribution(
      DiagonalGaussian(
        mean: try moments.channels(0..<latentChannels, in: context),
        logVariance: try moments.channels(latentChannels..<2 * latentChannels, in: context)))
  }

  public func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor { try decode(latents, in: context, mixing: nil) }

  /// - Parameters:
  ///   - frames: of each clip, in a row.
  ///   - mix: what becomes of the decoder's features before each of its levels and after the last; nil: they stay as they are.
  func decode(
    _ latents: Tensor, frames: Int = 1, in context: ExecutionContext, mixing mix: ((Tensor) throws -> Tensor)? = nil
  ) throws -> Tensor {
    try checkLatents(latents)
    return try decoder(postQuantConvolution?(latents, in: context) ?? latents, frames: frames, mixing: mix, in: context)
  }
}

extension WeightScope {
  /// The encoder's weights, which text-to-image never uses.
  var ofEncoder: WeightScope {
    var weights = self["encoder"]
    if weights.residency == .packed { weights.residency = .packedOnceUsed }
    return weights
  }
}
