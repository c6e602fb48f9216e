import LatentDiffusionComponents
import Tensor

/// Changes a picture as the prompt says; for models that take a picture beside the latents. Source: diffusers'
/// `StableDiffusionInstructPix2PixPipeline` and `StableDiffusionXLInstructPix2PixPipeline`.
public struct InstructionEditing: GenerationTask {
  /// `[N, H, W, 3]`, 0…1.
  public var image: Tensor
  /// From 1 up: how closely the result keeps to the picture (`image_guidance_scale`).
  public var imageGuidance: Double

  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, 0…1.
  ///   - imageGuidance: how closely the result keeps to the picture.
  public init(_ image: Tensor, imageGuidance: Double = 1.5) { (self.image, self.imageGuidance) = (image, imageGuidance) }

  public var name: String { "instruction editing" }
  public var inputs: [(name: String, tensor: Tensor)] { [("The image", image)] }
  public func source(scale: Int) -> TaskSource { .pixels(image.pixelSize()) }
  public func inputChannels(latentChannels: Int) -> [Int] { [2 * latentChannels] }
  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings { GenerationSettings(steps: 100, guidance: 7.5) }

  public func guidance(scale: Double, rescale: Double) throws(GenerationError) -> any Guidance {
    imageGuidance >= 1 ? PictureGuidance(text: Float(scale), picture: Float(imageGuidance), rescale: Float(rescale)) : Unguided()
  }

  public func check(latentChannels: Int) throws(GenerationError) {
    try checkNumber("The image guidance", imageGuidance, in: 0...1e6)
    try image.checkPicture("The image", channels: 3)
  }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    let latents = preparation.drawnNoise() * preparation.scheduler.initialNoiseScale
    return LoopStart(latents: latents, beside: try preparation.likelyLatents(of: preparation.fitted(image)))
  }
}
