import LatentDiffusionComponents
import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

/// The autoencoder of Stable Diffusion. Source: Rombach et al. 2022, diffusers' `AutoencoderKL`.
public struct AutoencoderKL: LatentAutoencoder {
  /// What the configuration says.
  public let shape: AutoencoderKLShape
  /// Whether pictures go through in tiles.
  public var tiling: AutoencoderTiling = .automatic
  private let encoder: Encoder
  private let decoder: Decoder
  private let quantConvolution: Convolution2D?
  private let postQuantConvolution: Convolution2D?

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ shape: AutoencoderKLShape, weights: WeightScope) throws {
    self.shape = shape
    let channels = shape.latentChannels
    // Pictures from words alone never meet the encoder.
    var encoderWeights = weights["encoder"]
    if encoderWeights.residency == .packed { encoderWeights.residency = .packedOnceUsed }
    encoder = try Encoder(shape, weights: encoderWeights)
    decoder = try Decoder(shape, weights: weights["decoder"])
    quantConvolution =
      shape.hasQuantConvolution ? try Convolution2D(2 * channels, 2 * channels, kernel: 1, weights: weights["quant_conv"]) : nil
    postQuantConvolution =
      shape.hasPostQuantConvolution ? try Convolution2D(channels, channels, kernel: 1, weights: weights["post_quant_conv"]) : nil
  }

  public var spatialScale: Int { shape.spatialScale }
  public var latentChannels: Int { shape.latentChannels }
  public var latentScale: Float { shape.scalingFactor }
  public var latentShift: Float { shape.shiftFactor }

  public func encode(_ image: Tensor, in context: ExecutionContext) throws -> DiagonalGaussian {
    guard image.shape.rank == 4, image.shape[3] == 3, image.count > 0 else {
      throw ComponentError.unexpectedShape(
        component: "The autoencoder", argument: "a picture", expected: "[N, H, W, 3]", found: image.shape)
    }
    for side in [image.shape[1], image.shape[2]] where side % spatialScale != 0 {
      throw ComponentError.indivisibleSide(component: "The autoencoder", side: side, multiple: spatialScale)
    }
    func encode(_ image: Tensor) throws -> Tensor {
      let moments = try encoder(image, in: context)
      return try quantConvolution?(moments, in: context) ?? moments
    }
    let tiles = tiling.tiles(height: image.shape[1] / spatialScale, width: image.shape[2] / spatialScale, scale: spatialScale)
    let moments = try tiles?.encode(image, scale: spatialScale, in: context, encode) ?? encode(image)
    return DiagonalGaussian(
      mean: try moments.channels(0..<latentChannels, in: context),
      logVariance: try moments.channels(latentChannels..<2 * latentChannels, in: context))
  }

  public func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    guard latents.shape.rank == 4, latents.shape[3] == latentChannels, latents.count > 0 else {
      throw ComponentError.unexpectedShape(
        component: "The autoencoder", argument: "latents", expected: "[N, h, w, \(latentChannels)]", found: latents.shape)
    }
    func decode(_ latents: Tensor) throws -> Tensor {
      try decoder(postQuantConvolution?(latents, in: context) ?? latents, in: context)
    }
    let tiles = tiling.tiles(height: latents.shape[1], width: latents.shape[2], scale: spatialScale)
    return try tiles?.decode(latents, scale: spatialScale, in: context, decode) ?? decode(latents)
  }
}
