import LatentDiffusionComponents
import Tensor

/// A clip that begins with a picture, which the predictor sees beside every frame. Source: diffusers' `StableVideoDiffusionPipeline`.
///
/// The guidance of the request is that of the last frame (`max_guidance_scale`).
public struct ImageToVideo: GenerationTask {
  /// `[1, H, W, 3]`, 0…1. It is resampled to the size of the clip, which is the usual one where the request names none.
  public var image: Tensor
  /// Of the clip; nil: as many as are usual for the predictor.
  public var frameCount: Int?
  /// Frames a second, from which the predictor knows how far things move from one to the next.
  public var framesPerSecond: Double
  /// How much moves: the higher, the more (`motion_bucket_id`).
  public var motionBucket: Double
  /// How much noise the picture gets before it is encoded: the more, the less the clip looks like it (`noise_aug_strength`).
  public var noiseStrength: Double
  /// How closely the first frame follows the picture (`min_guidance_scale`).
  public var minimumGuidance: Double
  public var framesDecodedTogether: Int?

  /// - Parameters:
  ///   - image: `[1, H, W, 3]`, 0…1.
  ///   - frames: of the clip; nil: as many as are usual for the predictor.
  ///   - framesPerSecond: at which the clip is meant to be shown.
  ///   - motionBucket: how much moves.
  ///   - noiseStrength: how much noise the picture gets before it is encoded.
  ///   - minimumGuidance: that of the first frame.
  ///   - framesDecodedTogether: of the clip (`decode_chunk_size`), which changes the pictures; nil: all.
  public init(
    _ image: Tensor, frames: Int? = nil, framesPerSecond: Double = 7, motionBucket: Double = 127, noiseStrength: Double = 0.02,
    minimumGuidance: Double = 1, framesDecodedTogether: Int? = nil
  ) {
    (self.image, frameCount, self.framesPerSecond, self.motionBucket) = (image, frames, framesPerSecond, motionBucket)
    (self.noiseStrength, self.minimumGuidance, self.framesDecodedTogether) = (noiseStrength, minimumGuidance, framesDecodedTogether)
  }

  /// Of the clip, where the request names no size.
  public static let usualSize = PixelSize(width: 1024, height: 576)

  public var name: String { "image-to-video" }
  public var frames: TaskFrames { frameCount.map(TaskFrames.count) ?? .usual }
  public var inputs: [(name: String, tensor: Tensor)] { [("The image", image)] }
  public var imagePrompts: [ImagePrompt] { [ImagePrompt([image])] }
  public func source(scale: Int) -> TaskSource { .pixels(Self.usualSize) }
  public func inputChannels(latentChannels: Int) -> [Int] { [2 * latentChannels] }
  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings { GenerationSettings(steps: 25, guidance: 3) }

  public func guidance(scale: Double, rescale: Double) throws(GenerationError) -> any Guidance {
    try checkNumber("The guidance rescaling of image-to-video", rescale, in: 0...0)
    return FrameGuidance(first: Float(minimumGuidance), last: Float(scale))
  }

  public func check(latentChannels: Int) throws(GenerationError) {
    try image.checkPicture("The image", channels: 3)
    guard image.shape[0] == 1 else {
      throw .unexpectedShape(name: "The image", expected: "[1, height, width, 3]", found: image.shape)
    }
    try checkNumber("The number of frames a second", framesPerSecond, in: 0.01...1000)
    try checkNumber("The motion bucket", motionBucket, in: 0...100_000)
    try checkNumber("The noise of the picture", noiseStrength, in: 0...1000)
    try checkNumber("The smallest guidance", minimumGuidance, in: 0...1e6)
    try checkNumber("The number of frames that are decoded together", framesDecodedTogether ?? 1, in: 1...Int.max)
  }

  /// - Throws: `GenerationError` where another model began the denoising, since the picture says nothing of its latents.
  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    guard !preparation.isUnderWay else {
      throw GenerationError.outOfRange(name: "The start of denoising", value: "given", allowed: "left out for image-to-video")
    }
    let picture = preparation.fitted(image).centered
    let noised = picture + Float(noiseStrength) * preparation.noise.normal(channelsLast: picture.shape)
    let seen = try preparation.likelyLatents(ofCentered: noised)
    let latents = preparation.noiseDrawnByFrame() * preparation.scheduler.initialNoiseScale, shape = latents.shape
    let frame = seen.reshaped(Shape([shape[0], 1] + seen.shape.dimensions.dropFirst()))
    // The network was trained with a frame a second less than there were.
    let told = Tensor([Float(framesPerSecond - 1), Float(motionBucket), Float(noiseStrength)], shape: [1, 3])
    return LoopStart(
      latents: latents, beside: Tensor.concatenated(Array(repeating: frame, count: shape[1]), axis: 1),
      inputs: ["time_ids": told.repeated(shape[0])])
  }
}
