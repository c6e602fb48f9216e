import LatentDiffusionComponents
import Tensor

/// An image encoder and an IP-Adapter's projection: they turn pictures into tokens that a U-Net attends to beside the text.
///
/// Source: `prepare_ip_adapter_image_embeds` of diffusers' `StableDiffusionPipeline`.
public struct IPAdapterConditioner: ImageConditioner {
  /// How pictures become tokens.
  public enum Projection: Sendable {
    /// Of the projected state of the whole picture.
    case plain(ImageProjection)
    /// Of all states before the encoder's last layer.
    case plus(IPAdapterPlusImageProjection)
  }

  private let encoder: CLIPImageEncoder
  private let projection: Projection

  /// - Precondition: the projection takes the encoder's states: `IPAdapterFile` checks that.
  public init(encoder: CLIPImageEncoder, projection: Projection) { (self.encoder, self.projection) = (encoder, projection) }

  public var isRequired: Bool { false }

  public func check(_ prompt: ImagePrompt) throws {
    if prompt.noiseLevel != nil { throw ComponentError.unsupported(component: "An IP-Adapter", option: "noise level") }
  }

  /// - Throws: `ComponentError`, `CancellationError`.
  public func condition(_ prompt: ImagePrompt, drawing noise: inout any NoiseSource, in context: ExecutionContext) throws
    -> ImageConditioning
  {
    let states = try encoder(prompt.pictures, in: context), count = prompt.pictures.count
    let seen: Tensor, unseen: Tensor
    switch projection {
    case .plain(let project):
      (seen, unseen) = try (
        project(states.imageEmbeds, in: context), project(Tensor(shape: [1, states.imageEmbeds.shape.columns]), in: context)
      )
    case .plus(let project):
      // Zeros here are the mean colour, not black, as in the reference.
      let side = encoder.model.configuration.imageSize
      let nothing = try encoder.model(Tensor(shape: [1, side, side, 3]), in: context)
      (seen, unseen) = try (project(states.penultimate, in: context), project(nothing.penultimate, in: context))
    }
    func conditioning(_ tokens: Tensor) -> Conditioning {
      var result = Conditioning(hiddenStates: tokens.reshaped([1, tokens.shape[0] * tokens.shape[1], tokens.shape[2]]))
      result.imageScales = [Float(prompt.scale ?? 1)]
      return result
    }
    return ImageConditioning(prompt: conditioning(seen), negative: conditioning(unseen.repeated(count)))
  }
}
