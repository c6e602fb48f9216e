import LatentDiffusionComponents
import Tensor

/// From a picture with noise on it. Source: diffusers' `StableDiffusionImg2ImgPipeline`, `LatentConsistencyModelImg2ImgPipeline`.
public struct ImageToImage: GenerationTask {
  /// What it starts from.
  public var image: SourceImage
  public var strength: Double

  /// - Parameters:
  ///   - image: what it starts from.
  ///   - strength: the part of the steps that are run, 0…1.
  public init(_ image: SourceImage, strength: Double = 0.8) { (self.image, self.strength) = (image, strength) }

  public var name: String { "image-to-image" }

  public var inputs: [(name: String, tensor: Tensor)] {
    switch image {
    case .pixels(let image): [("The image", image)]
    case .latents(let latents): [("The latents", latents)]
    }
  }

  public func source(scale: Int) -> TaskSource {
    switch image {
    case .pixels(let image): .pixels(image.pixelSize())
    case .latents(let latents): .latents(latents.pixelSize(scale: scale))
    }
  }

  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings {
    TextToImage().usualSettings(ofConsistencyModel: ofConsistencyModel)
  }

  public func check(latentChannels: Int) throws(GenerationError) {
    switch image {
    case .pixels(let image): try image.checkPicture("The image", channels: 3)
    case .latents(let latents): try latents.checkPicture("The latents", channels: latentChannels)
    }
  }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    let original =
      switch image {
      case .pixels(let image): try preparation.sampledLatents(of: preparation.fitted(image))
      case .latents(let latents): preparation.repeated(latents)
      }
    guard !preparation.isUnderWay else { return LoopStart(latents: original) }
    return LoopStart(latents: preparation.noised(original, with: preparation.drawnNoise()))
  }
}

/// A picture to start from. N is 1, or divides the number of pictures of the request.
///
/// Where its sides are no multiples of what the model works in, it is resampled to the multiples below; where the request has
/// a width or a height, to those, in the way of its `resizeMode`.
public enum SourceImage: Sendable {
  /// `[N, H, W, 3]`, 0…1.
  case pixels(Tensor)
  /// `[N, h, w, C]`, as a generation returns them.
  case latents(Tensor)
}
