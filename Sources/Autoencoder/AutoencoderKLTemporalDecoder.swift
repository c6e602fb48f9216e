import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Tensor

/// The autoencoder of Stable Video Diffusion, in whose decoder the frames of a clip see one another. Its encoder is that of Stable Diffusion.
///
/// Source: Blattmann et al. 2023 (arXiv:2311.15127), diffusers' `AutoencoderKLTemporalDecoder`.
public struct AutoencoderKLTemporalDecoder: LatentAutoencoder, ModelComponent {
  private let base: AutoencoderKL

  public static var classNames: [String] { ["AutoencoderKLTemporalDecoder"] }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    base = try AutoencoderKL(AutoencoderKLConfiguration(temporal: json), weights: weights)
  }

  public var spatialScale: Int { base.spatialScale }
  public var latentChannels: Int { base.latentChannels }
  public var latentScale: Float { base.latentScale }
  public var decodesClips: Bool { true }

  public func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture { try base.encode(image, in: context) }

  /// Each picture is a clip of one frame.
  public func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor { try base.decode(latents, in: context) }

  public func decode(framesOfClip latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    try base.decode(latents, frames: max(1, latents.shape.dimensions.first ?? 1), in: context)
  }
}

extension AutoencoderKLConfiguration {
  private struct TemporalKeys: Decodable { var scaling_factor: Float? }

  /// - Parameter json: the `config.json` of an `AutoencoderKLTemporalDecoder`.
  fileprivate init(temporal json: Data) throws {
    let check = ConfigurationCheck("AutoencoderKLTemporalDecoder")
    let keys = try decodeConfiguration(AutoencoderShapeKeys.self, component: check.component, from: json)
    let scale = try decodeConfiguration(TemporalKeys.self, component: check.component, from: json).scaling_factor ?? 0.18215
    try check.latents(scale: scale)
    let encoder = try AutoencoderShape(keys, latentChannels: 4, check)
    // Of one layer, diffusers' decoder leaves out its attention; of three, a resnet.
    try check.supported(encoder.resnets == 2, "layers_per_block", "\(encoder.resnets)")
    var decoder = encoder
    decoder.decodesClips = true
    self.init(encoder: encoder, decoder: decoder, scalingFactor: scale, hasPostQuantConvolution: false)
  }
}
