import LatentDiffusionComponents
import LatentDiffusionLayers
import Tensor

/// The state of a picture as the only token that the U-Net attends to, and zeros to stay away from. Source: diffusers'
/// `StableDiffusionImageVariationPipeline`.
public struct VariationConditioner: ImageConditioner {
  private let encoder: CLIPImageEncoder

  /// - Parameter encoder: its projected state is as wide as a token.
  public init(encoder: CLIPImageEncoder) { self.encoder = encoder }

  public var isRequired: Bool { true }

  public func check(_ prompt: ImagePrompt) throws {
    try prompt.checkVariation()
    if prompt.noiseLevel != nil { throw ComponentError.unsupported(component: "This model", option: "noise level") }
  }

  /// - Throws: `ComponentError`, `CancellationError`.
  public func condition(_ prompt: ImagePrompt, drawing noise: inout any NoiseSource, in context: ExecutionContext) throws
    -> ImageConditioning
  {
    let embeds = try encoder(prompt.pictures, in: context).imageEmbeds
    let token = embeds.reshaped([1, 1, embeds.shape.columns])
    return ImageConditioning(prompt: Conditioning(hiddenStates: token), negative: Conditioning(hiddenStates: Tensor(shape: token.shape)))
  }
}

/// The state of a picture with noise and the level of the noise as `class_labels`, and zeros to stay away from. Source: `noise_image_embeddings` of
/// diffusers' `StableUnCLIPImg2ImgPipeline`.
public struct UnCLIPImageConditioner: ImageConditioner {
  private let encoder: CLIPImageEncoder
  private let normalizer: StableUnCLIPImageNormalizer
  private let alphasCumprod: [Float]

  /// - Parameters:
  ///   - encoder: of pictures.
  ///   - normalizer: of as many features as the encoder's projected state.
  ///   - alphasCumprod: ᾱ of each noise level, at least one.
  /// - Throws: `ComponentError` where they do not fit one another.
  public init(encoder: CLIPImageEncoder, normalizer: StableUnCLIPImageNormalizer, alphasCumprod: [Float]) throws {
    let features = encoder.model.configuration.projectedFeatures
    guard normalizer.features == features else {
      throw ComponentError.unexpectedShape(
        component: "The image normalizer", argument: "states", expected: "[N, \(normalizer.features)]", found: [1, features])
    }
    guard !alphasCumprod.isEmpty else { throw ComponentError.missingInput(component: "unCLIP", argument: "a table of noise levels") }
    (self.encoder, self.normalizer, self.alphasCumprod) = (encoder, normalizer, alphasCumprod)
  }

  public var isRequired: Bool { true }

  public func check(_ prompt: ImagePrompt) throws {
    try prompt.checkVariation()
    if let level = prompt.noiseLevel, !alphasCumprod.indices.contains(level) {
      throw ComponentError.outOfRange(
        component: "This model", option: "a noise level", value: "\(level)", allowed: "from 0 to \(alphasCumprod.count - 1)")
    }
  }

  /// - Throws: `ComponentError`, `CancellationError`.
  public func condition(_ prompt: ImagePrompt, drawing noise: inout any NoiseSource, in context: ExecutionContext) throws
    -> ImageConditioning
  {
    let embeds = try encoder(prompt.pictures, in: context).imageEmbeds, level = prompt.noiseLevel ?? 0
    let drawn = Tensor(noise.normal(embeds.count), shape: embeds.shape), alpha = alphasCumprod[level]
    let noised = normalizer.unscaled(alpha.squareRoot() * normalizer.scaled(embeds) + (1 - alpha).squareRoot() * drawn)
    let sinusoids = Timesteps(embeds.shape.columns, flipSinToCos: true, frequencyShift: 0)([Float(level)])
    let labels = Tensor.concatenated([noised, sinusoids], axis: -1)
    func conditioning(_ labels: Tensor) -> Conditioning { Conditioning(rows: 1, inputs: ["class_labels": labels]) }
    return ImageConditioning(prompt: conditioning(labels), negative: conditioning(Tensor(shape: labels.shape)))
  }
}

extension ImagePrompt {
  /// A variation is of one picture, which nothing stands beside.
  fileprivate func checkVariation() throws(ComponentError) {
    guard pictures.count == 1 else {
      throw .outOfRange(component: "This model", option: "pictures", value: "\(pictures.count)", allowed: "one by one")
    }
    if scale != nil { throw .unsupported(component: "This model", option: "scale of the picture") }
  }
}
