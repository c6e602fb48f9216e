import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The autoencoder of Stable Diffusion with a larger decoder, which reads the same latents. Source: Zhu et al. 2023 (arXiv:2306.04632), diffusers'
/// `AsymmetricAutoencoderKL`.
///
/// Its decoder is shown what an inpainting keeps of a picture, so that the seam is not seen.
public struct AsymmetricAutoencoderKL: LatentAutoencoder, ModelComponent {
  private let base: AutoencoderKL
  private let conditionEncoder: MaskConditionEncoder

  public static var classNames: [String] { ["AsymmetricAutoencoderKL"] }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    base = try AutoencoderKL(AutoencoderKLConfiguration(asymmetric: json), weights: weights)
    conditionEncoder = try MaskConditionEncoder(base.configuration.decoderShape, weights: weights["decoder"]["condition_encoder"])
  }

  public var spatialScale: Int { base.spatialScale }
  public var latentChannels: Int { base.latentChannels }
  public var latentScale: Float { base.latentScale }

  public func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture { try base.encode(image, in: context) }
  public func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor { try base.decode(latents, in: context) }

  public var decodesKeptPictures: Bool { true }

  /// - Throws: `ComponentError` where the picture has not the size of the decoded ones, or the halves of the autoencoder do not fit; `CancellationError`.
  public func decode(_ latents: Tensor, keeping picture: KeptPicture, in context: ExecutionContext) throws -> Tensor {
    try checkLatents(latents)
    for (tensor, channels) in [(picture.image, 3), (picture.new, 1)] {
      let expected: Shape = [latents.shape[0], spatialScale * latents.shape[1], spatialScale * latents.shape[2], channels]
      guard tensor.shape == expected else {
        throw ComponentError.unexpectedShape(
          component: "The autoencoder", argument: "what is kept", expected: expected.description, found: tensor.shape)
      }
    }
    let features = try conditionEncoder(picture, in: context)
    return try base.decode(latents, in: context, mixing: { try features.mixed(into: $0, in: context) })
  }
}

/// The keys of `config.json`, under diffusers' names, of which each half has its own.
private struct AsymmetricKeys: Decodable {
  var down_block_out_channels: [Int]?
  var layers_per_down_block: Int?
  var up_block_out_channels: [Int]?
  var layers_per_up_block: Int?
  var scaling_factor: Float?
}

extension AutoencoderKLConfiguration {
  /// - Parameter json: the `config.json` of an `AsymmetricAutoencoderKL`.
  fileprivate init(asymmetric json: Data) throws {
    let check = ConfigurationCheck("AsymmetricAutoencoderKL")
    let c = try decodeConfiguration(AsymmetricKeys.self, component: check.component, from: json)
    let shared = try decodeConfiguration(AutoencoderShapeKeys.self, component: check.component, from: json)
    func shape(_ channels: [Int]?, _ layers: Int?, _ change: (inout AutoencoderShapeKeys) -> Void) throws -> AutoencoderShape {
      var keys = shared
      (keys.block_out_channels, keys.layers_per_block) = (channels, layers)
      change(&keys)
      return try AutoencoderShape(keys, latentChannels: 4, check)
    }
    // Blocks of the other half are checked with its channels.
    let encoder = try shape(c.down_block_out_channels, c.layers_per_down_block) { $0.up_block_types = nil }
    let decoder = try shape(c.up_block_out_channels, c.layers_per_up_block) { $0.down_block_types = nil }
    try check.supported(
      encoder.spatialScale == decoder.spatialScale, "up_block_out_channels",
      "\(decoder.channels.count) levels for \(encoder.channels.count)")
    let scale = c.scaling_factor ?? 0.18215
    try check.latents(scale: scale)
    self.init(encoder: encoder, decoder: decoder, scalingFactor: scale)
  }
}
