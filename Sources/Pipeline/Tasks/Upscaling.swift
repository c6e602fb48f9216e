import LatentDiffusionComponents
import Tensor

/// Enlarges a picture, which the predictor sees with some noise beside the latents: one pixel of it for each latent. Source: diffusers'
/// `StableDiffusionUpscalePipeline`.
public struct Upscaling: GenerationTask {
  /// `[N, H, W, 3]`, 0…1. The result is as many times as large as the autoencoder's scale says. Sides that are no multiples of that scale are resampled to
  /// the multiples below, with Pillow's cubic filter, as the reference does.
  public var image: Tensor
  /// How much noise the picture gets, from 0 up to what the model allows (`noise_level`): the more, the freer the result.
  public var noiseLevel: Int

  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, 0…1.
  ///   - noiseLevel: how much noise it gets.
  public init(_ image: Tensor, noiseLevel: Int = 20) { (self.image, self.noiseLevel) = (image, noiseLevel) }

  public var name: String { "upscaling" }
  public var inputs: [(name: String, tensor: Tensor)] { [("The image", image)] }
  public func source(scale: Int) -> TaskSource {
    let size = Self.fitted(image.pixelSize(), scale: scale)
    return .latents(PixelSize(width: size.width * scale, height: size.height * scale))
  }
  public func inputChannels(latentChannels: Int) -> [Int] { [latentChannels + 3] }
  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings { GenerationSettings(steps: 75, guidance: 9) }
  public func check(latentChannels: Int) throws(GenerationError) { try image.checkPicture("The image", channels: 3) }

  /// - Throws: `GenerationError` where the model does not allow so much noise.
  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    let levels = preparation.pictureNoise
    guard levels.indices.contains(noiseLevel) else {
      throw GenerationError.outOfRange(
        name: "The noise level", value: "\(noiseLevel)",
        allowed: levels.isEmpty ? "left to models that were made for upscaling" : "from 0 to \(levels.count - 1)")
    }
    let level = levels[noiseLevel], size = Self.fitted(image.pixelSize(), scale: preparation.spatialScale)
    let image = image.resampled(height: size.height, width: size.width, by: .bicubic)
    let noised = level.alpha * image.centered + level.sigma * preparation.noise.normal(channelsLast: image.shape)
    let latents = preparation.drawnNoise() * preparation.scheduler.initialNoiseScale
    return LoopStart(
      latents: latents, beside: preparation.repeated(noised),
      inputs: ["class_labels": Tensor(repeating: Float(noiseLevel), shape: [latents.shape[0]])])
  }

  /// A picture smaller than the scale stays as it is.
  private static func fitted(_ size: PixelSize, scale: Int) -> PixelSize {
    func multiple(_ side: Int) -> Int { side < scale ? side : side / scale * scale }
    return PixelSize(width: multiple(size.width), height: multiple(size.height))
  }
}
