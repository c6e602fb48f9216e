import Tensor

/// The network that guesses the noise (or the velocity, or the picture) in a noisy latent: a U-Net, a ControlNet-guided one, a toy.
public protocol NoisePredictor: Sendable {
  /// Channels of the input: 4 for text-to-image, 9 for inpainting, 8 for instruction editing.
  var inputChannels: Int { get }
  /// Channels of the prediction, those of the latents.
  var outputChannels: Int { get }
  /// Every side of the latents must be a multiple of this.
  var sideMultiple: Int { get }
  /// The side of the latents it was trained on, where its configuration says so.
  var sampleSize: Int? { get }
  /// True where a guidance scale is an input of the network (LCM), given in `Conditioning.guidance`.
  var embedsGuidance: Bool { get }

  /// One pass.
  ///
  /// - Parameters:
  ///   - latents: `[N, h, w, inputChannels]`.
  ///   - timestep: on the training scale, 0..<1000 as a rule.
  ///   - conditioning: N rows.
  /// - Returns: `[N, h, w, outputChannels]`.
  /// - Throws: `CancellationError`; `ComponentError` where shapes do not fit.
  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor
}

extension NoisePredictor {
  public var sideMultiple: Int { 1 }
  public var sampleSize: Int? { nil }
  public var embedsGuidance: Bool { false }
}
