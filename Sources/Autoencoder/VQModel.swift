import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The autoencoder of the first latent diffusion models, whose decoder sees vectors of a codebook alone. Source: Esser et al. 2021
/// (arXiv:2012.09841), diffusers' `VQModel`.
public struct VQModel: LatentAutoencoder, ModelComponent {
  /// The checked configuration.
  public let configuration: VQModelConfiguration
  private let encoder: Encoder
  private let quantConvolution: Convolution2D
  /// `[codes, latentChannels]`.
  private let codebook: Parameter<Tensor>
  private let postQuantConvolution: Convolution2D
  private let decoder: Decoder

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: VQModelConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let shape = configuration.shape, channels = shape.latentChannels, length = configuration.codeLength
    encoder = try Encoder(shape, outChannels: channels, weights: weights.ofEncoder)
    quantConvolution = try Convolution2D(channels, length, kernel: 1, weights: weights["quant_conv"])
    codebook = try weights["quantize"]["embedding"].vector("weight", shape: [configuration.codes, length])
    postQuantConvolution = try Convolution2D(length, channels, kernel: 1, weights: weights["post_quant_conv"])
    decoder = try Decoder(shape, weights: weights["decoder"])
  }

  public static var classNames: [String] { ["VQModel"] }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(VQModelConfiguration(json: json), weights: weights)
  }

  public var spatialScale: Int { configuration.shape.spatialScale }
  public var latentChannels: Int { configuration.codeLength }
  public var latentScale: Float { configuration.scalingFactor }

  /// Plain latents, which are not quantised: that is the decoder's part.
  public func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    try checkPicture(image)
    return .latents(try quantConvolution(encoder(image, in: context), in: context))
  }

  public func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    try decode(latents, quantizing: true, in: context)
  }

  /// - Parameters:
  ///   - latents: `[N, h, w, latentChannels]`, unscaled.
  ///   - quantizing: whether each is replaced by the nearest vector of the codebook first; false is diffusers' `force_not_quantize`.
  /// - Returns: `[N, h·scale, w·scale, 3]`.
  /// - Throws: as `decode`.
  public func decode(_ latents: Tensor, quantizing: Bool, in context: ExecutionContext) throws -> Tensor {
    try checkLatents(latents)
    let codes = quantizing ? try latents.nearest(in: codebook.value, in: context) : latents
    if quantizing { context.observer?("quantize", codes) }
    return try decoder(postQuantConvolution(codes, in: context), in: context)
  }
}

/// The keys of `config.json` that the shape of a `VQModel` does not have, under diffusers' names.
private struct VQModelKeys: Decodable {
  var num_vq_embeddings: Int?
  var vq_embed_dim: Int?
  var scaling_factor: Float?
  var norm_type: String?
  var lookup_from_codebook: Bool?
}

/// The shape of a `VQModel`, complete and checked, with diffusers' defaults filled in.
public struct VQModelConfiguration: Sendable {
  let shape: AutoencoderShape
  /// Vectors of the codebook.
  let codes: Int
  /// Their length, which is that of the latents.
  let codeLength: Int
  let scalingFactor: Float

  /// - Parameter json: the `config.json`.
  /// - Throws: `ConfigurationError`; among others where latents are to be indices (`lookup_from_codebook`), which no diffusion makes.
  public init(json: Data) throws {
    let check = ConfigurationCheck("VQModel")
    let c = try decodeConfiguration(VQModelKeys.self, component: check.component, from: json)
    shape = try AutoencoderShape(
      decodeConfiguration(AutoencoderShapeKeys.self, component: check.component, from: json), latentChannels: 3, check)
    codes = c.num_vq_embeddings ?? 256
    codeLength = c.vq_embed_dim ?? shape.latentChannels
    scalingFactor = c.scaling_factor ?? 0.18215
    for (value, key) in [(codes, "num_vq_embeddings"), (codeLength, "vq_embed_dim")] { try check.extent(value, key) }
    try check.latents(scale: scalingFactor)
    try check.supported((c.norm_type ?? "group") == "group", "norm_type", c.norm_type ?? "")
    try check.supported(c.lookup_from_codebook != true, "lookup_from_codebook", "true")
  }
}
