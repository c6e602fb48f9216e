import Foundation
import LatentDiffusionWeights

/// The keys of an autoencoder's `config.json` that its shape does not have, under diffusers' names. Source: `AutoencoderKL`.
private struct AutoencoderKLKeys: Decodable {
  var scaling_factor: Float?
  var shift_factor: Float?
  var use_quant_conv: Bool?
  var use_post_quant_conv: Bool?
}

/// An autoencoder's shape, complete and checked, with diffusers' defaults filled in.
public struct AutoencoderKLConfiguration: Sendable {
  let shape: AutoencoderShape
  /// Of the decoder, which is the same but in `AsymmetricAutoencoderKL`.
  let decoderShape: AutoencoderShape
  let scalingFactor: Float
  let shiftFactor: Float
  let hasQuantConvolution: Bool
  let hasPostQuantConvolution: Bool

  /// - Parameter json: an autoencoder's `config.json`.
  /// - Throws: `ConfigurationError`.
  public init(json: Data) throws {
    let check = ConfigurationCheck("AutoencoderKL")
    let c = try decodeConfiguration(AutoencoderKLKeys.self, component: check.component, from: json)
    shape = try AutoencoderShape(
      decodeConfiguration(AutoencoderShapeKeys.self, component: check.component, from: json), latentChannels: 4, check)
    decoderShape = shape
    scalingFactor = c.scaling_factor ?? 0.18215
    shiftFactor = c.shift_factor ?? 0
    hasQuantConvolution = c.use_quant_conv ?? true
    hasPostQuantConvolution = c.use_post_quant_conv ?? true
    try check.latents(scale: scalingFactor, shift: shiftFactor)
  }

  init(encoder: AutoencoderShape, decoder: AutoencoderShape, scalingFactor: Float, hasPostQuantConvolution: Bool = true) {
    (shape, decoderShape, self.scalingFactor, shiftFactor) = (encoder, decoder, scalingFactor, 0)
    (hasQuantConvolution, self.hasPostQuantConvolution) = (true, hasPostQuantConvolution)
  }

  /// Pixels a side for each latent a side.
  public var spatialScale: Int { shape.spatialScale }
}
