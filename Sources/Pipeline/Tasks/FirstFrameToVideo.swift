import LatentDiffusionComponents
import Tensor

/// A clip that begins with a picture, for predictors that draw clips and know nothing of pictures.
///
/// The first frame is put back to the picture after every step, with that step's noise, as inpainting puts back what is outside its mask. The other frames see
/// it through the motion modules.
public struct FirstFrameToVideo: GenerationTask {
  /// `[N, H, W, 3]`, 0…1, where N is 1 or divides the number of clips of the request. It is resampled as the picture of `ImageToImage` is.
  public var image: Tensor
  /// Of the clip; nil: as many as are usual for the predictor.
  public var frameCount: Int?
  /// The part of the steps that are run, 0…1. Below 1 all frames start from the picture with noise on it, and stay nearer to it.
  public var strength: Double

  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, 0…1.
  ///   - frames: of the clip; nil: as many as are usual for the predictor.
  ///   - strength: the part of the steps that are run, 0…1.
  public init(_ image: Tensor, frames: Int? = nil, strength: Double = 1) {
    (self.image, frameCount, self.strength) = (image, frames, strength)
  }

  public var name: String { "first-frame-to-video" }
  public var frames: TaskFrames { frameCount.map(TaskFrames.count) ?? .usual }
  public var inputs: [(name: String, tensor: Tensor)] { [("The first frame", image)] }
  public func source(scale: Int) -> TaskSource { .pixels(image.pixelSize()) }
  public func check(latentChannels: Int) throws(GenerationError) { try image.checkPicture("The first frame", channels: 3) }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    let still = try preparation.sampledLatents(of: preparation.fitted(image)), shape = preparation.latentShape
    let original = still.reshaped(Shape([shape[0], 1] + shape.dimensions.dropFirst(2)))
    let clip = Tensor.concatenated(Array(repeating: original, count: shape[1]), axis: 1)
    let drawn = preparation.drawnNoise(), noised = preparation.noised(clip, with: drawn)
    let first = Tensor(shape: original.shape),
      others = Tensor(repeating: 1, shape: Shape([shape[0], shape[1] - 1] + shape.dimensions.dropFirst(2)))
    let mask = Tensor.concatenated([first, others], axis: 1)
    let start = preparation.isUnderWay ? clip : strength < 1 ? noised : drawn * preparation.scheduler.initialNoiseScale
    return LoopStart(
      latents: mask.map { 1 - $0 } * noised + mask * start, restoration: Restoration(mask: mask, original: clip, noise: drawn))
  }
}
