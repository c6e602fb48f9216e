import LatentDiffusionComponents
import Tensor

/// What the loop starts from, what the predictor sees beside the latents, and what is kept: text-to-image, inpainting, …
///
/// A task is one type; the loop knows this protocol alone, so another package can bring its own.
public protocol GenerationTask: Sendable {
  /// What errors call it: "image-to-image".
  var name: String { get }
  /// Whether it makes pictures or clips; pictures, without an implementation.
  var frames: TaskFrames { get }
  /// The part of the steps that are run, 0…1; 1 without an implementation.
  var strength: Double { get }
  /// What it shows the pipeline's `imageConditioners` where the request shows them nothing; nothing without an implementation.
  var imagePrompts: [ImagePrompt] { get }
  /// How many frames of a clip are decoded together by a decoder in which they see one another; nil, without an implementation: all.
  var framesDecodedTogether: Int? { get }
  /// The pictures and masks of the task, with their names in errors. Each outermost extent must divide the number of pictures of the request.
  var inputs: [(name: String, tensor: Tensor)] { get }
  /// The start of the task. Its size is the size of the result, unless the request names another.
  ///
  /// - Parameter scale: pixels a side for each latent a side.
  func source(scale: Int) -> TaskSource
  /// Whether a picture that does not fit the model is filled up at its right and bottom, and cut again at the end, instead of resampled.
  var fillsUp: Bool { get }
  /// The channels that a predictor for this task may have, where the latents have so many; as many, without an implementation.
  func inputChannels(latentChannels: Int) -> [Int]
  /// Steps and guidance where a request leaves them open: the defaults of diffusers' pipelines. Without an implementation: 50 and 7.5.
  ///
  /// - Parameter ofConsistencyModel: whether the model embeds the guidance.
  func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings
  /// How predictions are combined for a guidance above 1; classifier-free without an implementation.
  /// - Throws: `GenerationError` where the task's guidance has no rescaling, and one is asked for.
  func guidance(scale: Double, rescale: Double) throws(GenerationError) -> any Guidance
  /// Checks what it was given.
  /// - Throws: `GenerationError`.
  func check(latentChannels: Int) throws(GenerationError)
  /// Whether a strength leaves any of so many steps; true without an implementation: the scheduler knows.
  func hasSteps(of steps: Int) -> Bool
  /// What the loop begins with. The order in which it draws random numbers is part of what a seed means.
  /// - Throws: `CancellationError`, and what the autoencoder throws.
  func start(_ preparation: inout Preparation) throws -> LoopStart
  /// The picture of which a part is kept, `[N, H, W, 3]`, 0…1, and what is new of it, `[N, H, W, 1]`, from 0.5 up: for decoders that look at them. Nil
  /// without an implementation.
  func keptPicture(resizeMode: ResizeMode) -> (image: Tensor, new: Tensor)?
  /// A decoded picture `[1, H, W, 3]` as it is given back; as it is, without an implementation.
  func finished(_ decoded: Tensor, index: Int, size: PixelSize, resizeMode: ResizeMode) -> Tensor
}

extension GenerationTask {
  public var frames: TaskFrames { .picture }
  public var strength: Double { 1 }
  public var imagePrompts: [ImagePrompt] { [] }
  public var framesDecodedTogether: Int? { nil }
  public var inputs: [(name: String, tensor: Tensor)] { [] }
  public func source(scale: Int) -> TaskSource { .nothing }
  public var fillsUp: Bool { false }
  public func inputChannels(latentChannels: Int) -> [Int] { [latentChannels] }
  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings { GenerationSettings(steps: 50, guidance: 7.5) }
  public func guidance(scale: Double, rescale: Double) throws(GenerationError) -> any Guidance {
    ClassifierFreeGuidance(scale: Float(scale), rescale: Float(rescale))
  }
  public func check(latentChannels: Int) throws(GenerationError) {}
  public func hasSteps(of steps: Int) -> Bool { true }
  public func keptPicture(resizeMode: ResizeMode) -> (image: Tensor, new: Tensor)? { nil }
  public func finished(_ decoded: Tensor, index: Int, size: PixelSize, resizeMode: ResizeMode) -> Tensor { decoded }
}

/// Whether a task makes pictures or clips, of how many frames.
public enum TaskFrames: Sendable, Equatable {
  /// Pictures: latents have no axis of frames.
  case picture
  /// Clips of as many frames as are usual for the predictor.
  case usual
  /// Clips of so many frames.
  case count(Int)
}

/// What a task starts from.
public enum TaskSource: Sendable, Equatable {
  /// Noise alone, in the size of the request or of the model.
  case nothing
  /// A picture of this size, which is resampled where the request names another.
  case pixels(PixelSize)
  /// Latents of a picture of this size, which cannot be resampled.
  case latents(PixelSize)

  /// Whether a picture of pixels is given, and encoded.
  public var isPixels: Bool { if case .pixels = self { true } else { false } }
}

/// What a task brings to the loop.
public struct LoopStart: Sendable {
  /// `[N, h, w, C]`, of clips `[N, F, h, w, C]`.
  public var latents: Tensor
  /// `[N, h, w, inputChannels - C]`, of clips with their frames: what the predictor sees beside the latents.
  public var beside: Tensor?
  /// What is put back after every step.
  public var restoration: Restoration?
  /// `[N, …]`: further inputs of the predictor by their names in diffusers, the same for all rows of a picture.
  public var inputs: [String: Tensor]

  /// - Parameters:
  ///   - latents: `[N, h, w, C]`.
  ///   - beside: what the predictor sees beside them.
  ///   - restoration: what is put back after every step.
  ///   - inputs: further inputs of the predictor, a row for each picture.
  public init(latents: Tensor, beside: Tensor? = nil, restoration: Restoration? = nil, inputs: [String: Tensor] = [:]) {
    (self.latents, self.beside, self.restoration, self.inputs) = (latents, beside, restoration, inputs)
  }
}

/// Keeps the latents outside a mask to those of a picture, for predictors that know nothing of masks.
public struct Restoration: Sendable {
  /// `[N, h, w, C]`, 0 or 1: where 1, the loop has its way.
  public let mask: Tensor
  /// `[N, h, w, C]`: the picture.
  public let original: Tensor
  /// `[N, h, w, C]`: the noise that the loop started with.
  public let noise: Tensor

  /// All of the shape of the latents.
  public init(mask: Tensor, original: Tensor, noise: Tensor) { (self.mask, self.original, self.noise) = (mask, original, noise) }

  /// The latents as they enter the next step: outside the mask, the picture with that step's noise; after the last, without any.
  func applied(to latents: Tensor, scheduler: any Scheduler, after step: Int, isLast: Bool) -> Tensor {
    let outside = isLast ? original : scheduler.addNoise(noise, to: original, at: step + 1)
    return mask.map { 1 - $0 } * outside + mask * latents
  }
}
