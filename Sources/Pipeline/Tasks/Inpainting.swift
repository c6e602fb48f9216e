import LatentDiffusionComponents
import Tensor

/// Repaints a part of a picture. Source: diffusers' `StableDiffusionInpaintPipeline`.
public struct Inpainting: GenerationTask {
  /// `[N, H, W, 3]`, 0…1.
  public var image: Tensor
  /// `[N, H, W, 1]`: from 0.5 up is repainted. One of another size than the picture is resampled to the size in the model, as diffusers does.
  public var mask: Tensor
  /// The part of the steps that are run, 0…1; at 1 nothing of what was below the mask is seen.
  public var strength = 1.0
  /// Returns the pixels outside the mask exactly as they were, instead of as the autoencoder sees them. A picture whose sides
  /// do not fit the model is then not resampled, but filled up at its right and bottom for the time of the generation.
  public var keepsPixelsOutsideMask = false

  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, 0…1.
  ///   - mask: `[N, H, W, 1]`, or one for all pictures; from 0.5 up is repainted.
  ///   - strength: the part of the steps that are run, 0…1.
  ///   - keepsPixelsOutsideMask: whether the pixels outside the mask come back exactly.
  public init(image: Tensor, mask: Tensor, strength: Double = 1, keepsPixelsOutsideMask: Bool = false) {
    self.image = image
    self.mask = mask
    self.strength = strength
    self.keepsPixelsOutsideMask = keepsPixelsOutsideMask
  }

  public var name: String { "inpainting" }
  public var inputs: [(name: String, tensor: Tensor)] { [("The image", image), ("The mask", mask)] }
  public func source(scale: Int) -> TaskSource { .pixels(image.pixelSize()) }
  public var fillsUp: Bool { keepsPixelsOutsideMask }
  public func inputChannels(latentChannels: Int) -> [Int] { [latentChannels, 2 * latentChannels + 1] }

  /// A scheduler may make more timesteps than steps (PNDM), of which one is left at a strength of 0: diffusers' image-to-image then runs
  /// that one, its inpainting refuses.
  public func hasSteps(of steps: Int) -> Bool { Double(steps) * strength >= 1 }

  public func check(latentChannels: Int) throws(GenerationError) {
    try image.checkPicture("The image", channels: 3)
    try mask.checkPicture("The mask", channels: 1)
    guard [1, image.shape[0]].contains(mask.shape[0]) else {
      throw .unexpectedShape(name: "The mask", expected: "[1 or \(image.shape[0]), height, width, 1]", found: mask.shape)
    }
  }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    let image = preparation.fitted(image)
    let mask = preparation.fitted(mask(for: preparation.resizeMode)).binarized()
    let latentMask = preparation.repeated(mask.sampled(every: preparation.spatialScale))
    let channels = preparation.latentShape.columns
    let blends = preparation.inputChannels == channels
    // At full strength the picture below the mask is not looked at, except for blending.
    let original = blends || strength < 1 || preparation.isUnderWay ? try preparation.sampledLatents(of: image) : nil
    let drawn = preparation.drawnNoise()
    let latents =
      if preparation.isUnderWay, let original {
        original
      } else if let original, strength < 1 {
        preparation.noised(original, with: drawn)
      } else {
        drawn * preparation.scheduler.initialNoiseScale
      }
    if blends, let original {
      // diffusers encodes the masked picture here too, for nothing; only the numbers drawn for it matter to what follows.
      preparation.skipSampling(of: image.shape[0])
      return LoopStart(
        latents: latents, restoration: Restoration(mask: latentMask.channelRepeated(channels), original: original, noise: drawn))
    }
    let kept = mask.map { 1 - $0 }.channelRepeated(3).repeated(image.shape[0] / mask.shape[0])
    let masked = try preparation.sampledLatents(of: image, times: kept)
    return LoopStart(latents: latents, beside: Tensor.concatenated([latentMask, masked], axis: -1))
  }

  public func keptPicture(resizeMode: ResizeMode) -> (image: Tensor, new: Tensor)? { (image, mask(for: resizeMode)) }

  /// The decoded picture with the original's pixels outside the mask, where they are kept.
  public func finished(_ decoded: Tensor, index: Int, size: PixelSize, resizeMode: ResizeMode) -> Tensor {
    guard keepsPixelsOutsideMask else { return decoded }
    func original(_ tensor: Tensor) -> Tensor {
      let row = index % tensor.shape[0]
      return tensor.rows(row..<row + 1).resized(to: size, mode: resizeMode)
    }
    let mask = original(mask(for: resizeMode)).binarized().channelRepeated(3)
    // A product with 1 and a sum with 0 change nothing: the kept pixels come back bit by bit.
    return mask * decoded + mask.map { 1 - $0 } * original(image)
  }

  /// The mask, in the picture's size where only that says what is cut off or added.
  private func mask(for mode: ResizeMode) -> Tensor {
    mode == .stretch ? mask : mask.resampled(height: image.shape[1], width: image.shape[2])
  }
}
