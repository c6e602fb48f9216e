import LatentDiffusionComponents
import Tensor

/// What a task makes the start of the loop with: pictures in the model's size, their latents, and noise.
///
/// The order in which random numbers are drawn is part of what a seed means: it is that of diffusers' pipelines.
public struct Preparation {
  let plan: Plan
  let context: ExecutionContext
  var noise: any NoiseSource
  /// Whether the encoder has given a distribution, so that numbers were drawn for its latents.
  private var drawsLatents = false

  init(_ plan: Plan, in context: ExecutionContext) {
    let (request, count) = (plan.request, UInt64(plan.count))
    (self.plan, self.context) = (plan, context)
    guard request.numbersSeeds, count > 1, plan.frames == nil else {
      noise = request.generator(request.seed)
      return
    }
    noise = walkingNoise((0..<count).map { (request.seed &+ $0, request.seed &+ $0, 0) }, request.generator)
  }

  /// `[N, h, w, C]`, of all latents.
  public var latentShape: Shape { plan.latentShape }
  /// Pixels a side for each latent a side.
  public var spatialScale: Int { plan.pipeline.autoencoder.spatialScale }
  /// Of the predictor.
  public var inputChannels: Int { plan.pipeline.predictor.inputChannels }
  /// As it is before the first step.
  public var scheduler: any Scheduler { plan.schedule.scheduler }
  /// The noise that pictures beside the latents can be given, by its level.
  public var pictureNoise: [NoiseLevel] { plan.pipeline.pictureNoise }
  /// How pictures take another size.
  public var resizeMode: ResizeMode { plan.request.resizeMode }

  /// Standard normal noise in the shape of the latents: the request's, or the next numbers of its generator, in the order that FreeNoise gives them.
  public mutating func drawnNoise() -> Tensor {
    if let given = plan.request.noise { return given }
    let drawn = noise.normal(channelsLast: latentShape)
    guard let windows = plan.request.frameWindows, windows.method == .freeNoise, let frames = plan.frames else { return drawn }
    let order = windows.noiseOrder(frames, drawing: &noise)
    return drawn.framesAsPictures.rows(at: (0..<plan.pictures).map { $0 / frames * frames + order[$0 % frames] }).reshaped(latentShape)
  }

  /// The same for tasks whose noise is drawn frame by frame, as `[N, F, C, h, w]`.
  mutating func noiseDrawnByFrame() -> Tensor {
    plan.request.noise ?? noise.normal(channelsLast: Shape([plan.pictures] + latentShape.dimensions.suffix(3))).reshaped(latentShape)
  }

  /// A picture 0…1 in the size of the model's input.
  public func fitted(_ image: Tensor) -> Tensor { plan.fitted(image) }

  /// A tensor of some pictures, repeated for all pictures of the request.
  /// - Precondition: its outermost extent divides their number, as that of a task's `inputs` does.
  public func repeated(_ tensor: Tensor) -> Tensor { tensor.repeated(plan.count / tensor.shape[0]) }

  /// Whether another model began the denoising, so that the picture of a task has its noise already.
  public var isUnderWay: Bool { plan.request.denoisingStart != nil }

  /// Latents with the noise of the first step.
  public func noised(_ original: Tensor, with noise: Tensor) -> Tensor {
    scheduler.addNoise(noise, to: original, at: plan.schedule.firstStep)
  }

  /// Scaled latents of pictures, drawn where the encoder gives a distribution, for all pictures of the request.
  ///
  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, 0…1, in the size of the model's input.
  ///   - kept: `[N, H, W, 3]`: what the pictures are multiplied by, with -1…1 for black and white.
  /// - Throws: `CancellationError`, and what the autoencoder throws.
  public mutating func sampledLatents(of image: Tensor, times kept: Tensor? = nil) throws -> Tensor {
    let encoded = try encoded(kept.map { image.centered * $0 } ?? image.centered)
    drawsLatents = encoded.gaussian != nil
    return repeated(plan.pipeline.autoencoder.scaled(encoded.sample(drawing: &noise)))
  }

  /// Scaled latents of videos, for all clips of the request. Frames are encoded one at a time, and drawn 16 at a time as by diffusers (`encode_video`), or
  /// all at once where a scheduler takes them for pictures.
  ///
  /// - Parameter video: `[N, F, H, W, 3]`, 0…1, of any size.
  /// - Returns: `[N, F, h, w, C]`.
  /// - Throws: `CancellationError`, and what the autoencoder throws.
  mutating func sampledLatents(ofVideo video: Tensor) throws -> Tensor {
    let pictures = video.framesAsPictures, (count, frames) = (pictures.shape[0], video.shape[1])
    let drawnAtOnce = plan.pipeline.predictor.clip?.stepsByFrame == true ? frames : Self.framesDrawnAtOnce
    var latents: [Tensor] = []
    for start in stride(from: 0, to: count, by: frames) {
      for begin in stride(from: start, to: start + frames, by: drawnAtOnce) {
        let encoded = try (begin..<min(begin + drawnAtOnce, start + frames)).map {
          try self.encoded(fitted(pictures.rows($0..<$0 + 1)).centered, $0, of: count)
        }
        latents.append(EncodedPicture.joined(encoded).sample(drawing: &noise))
      }
    }
    let all = plan.pipeline.autoencoder.scaled(Tensor.concatenated(latents, axis: 0))
    return repeated(all.reshaped(Shape([video.shape[0], frames] + all.shape.dimensions.dropFirst())))
  }

  private static let framesDrawnAtOnce = 16

  /// The most likely latents of pictures as the predictor takes them beside its own, for all pictures of the request: unscaled, unless the model says
  /// otherwise (`DiffusionPipeline.scalesPictures`).
  /// - Throws: `CancellationError`, and what the autoencoder throws.
  public func likelyLatents(of image: Tensor) throws -> Tensor { try likelyLatents(ofCentered: image.centered) }

  /// The same of pictures -1…1, or beyond that with noise on them.
  func likelyLatents(ofCentered image: Tensor) throws -> Tensor {
    let mode = try encoded(image).mode
    return repeated(plan.pipeline.scalesPictures ? plan.pipeline.autoencoder.scaled(mode) : mode)
  }

  /// Draws the numbers that sampling the latents of so many more pictures would draw.
  mutating func skipSampling(of pictures: Int) {
    guard drawsLatents else { return }
    _ = noise.normal(channelsLast: Shape([pictures] + latentShape.dimensions.dropFirst()))
  }

  /// - Parameters:
  ///   - index: of a frame among those of a video.
  ///   - count: of those frames.
  private func encoded(_ centered: Tensor, _ index: Int = 0, of count: Int = 1) throws -> EncodedPicture {
    var context = context
    plan.phase(.encodingPicture(done: index, count: count))
    context.progress = { [phase = plan.phase] in phase(.encodingPicture(done: index * $1 + $0, count: count * $1)) }
    return try context.observed(Work(.encodingPicture, index: index, of: count)) { [context] in
      try plan.pipeline.autoencoder.checkedEncode(centered, in: context)
    }
  }
}

extension Tensor {
  /// 0…1 to -1…1, as the autoencoder takes pictures.
  var centered: Tensor { map { 2 * $0 - 1 } }

  /// The frames of clips `[N, F, h, w, C]` as pictures, `[N · F, h, w, C]`: the same bytes. Pictures stay what they are.
  var framesAsPictures: Tensor {
    shape.rank == 5 ? reshaped(Shape([shape[0] * shape[1]] + shape.dimensions.suffix(3))) : self
  }

  /// The size in pixels of `[N, h, w, C]`; nothing of another tensor.
  func pixelSize(scale: Int = 1) -> PixelSize {
    shape.rank == 4 ? PixelSize(width: shape[2] * scale, height: shape[1] * scale) : PixelSize(width: 0, height: 0)
  }

  /// - Throws: `GenerationError` unless this is `[N, H, W, channels]` of numbers, with no extent 0.
  func checkPicture(_ name: String, channels: Int) throws(GenerationError) {
    guard shape.rank == 4, shape[3] == channels, shape.dimensions.allSatisfy({ $0 > 0 }) else {
      throw .unexpectedShape(name: name, expected: "[N, height, width, \(channels)]", found: shape)
    }
    guard isFinite else { throw .notFinite(name: name) }
  }
}

extension EncodedPicture {
  /// Several pictures as one of as many rows.
  fileprivate static func joined(_ all: [EncodedPicture]) -> EncodedPicture {
    let gaussians = all.compactMap(\.gaussian)
    guard gaussians.count == all.count else { return .latents(.concatenated(all.map(\.mode), axis: 0)) }
    return .distribution(
      DiagonalGaussian(
        mean: .concatenated(gaussians.map(\.mean), axis: 0), logVariance: .concatenated(gaussians.map(\.logVariance), axis: 0)))
  }
}

extension LatentAutoencoder {
  /// Latents as the noise predictor takes them.
  package func scaled(_ latents: Tensor) -> Tensor { latentScale * (latents - latentShift) }

  /// - Parameters:
  ///   - latents: `[N, h, w, C]`, scaled.
  ///   - framesOfClip: whether they are frames of a clip, in a row.
  ///   - picture: of which a part is kept, for decoders that look at it.
  /// - Returns: `[N, H, W, 3]`, 0…1.
  func image(of latents: Tensor, framesOfClip: Bool = false, keeping picture: KeptPicture? = nil, in context: ExecutionContext) throws
    -> Tensor
  {
    let decoded = try checkedDecode(latents / latentScale + latentShift, framesOfClip: framesOfClip, keeping: picture, in: context)
    guard decoded.isFinite else { throw GenerationError.notFinite(name: "The decoded picture") }
    return (decoded * 0.5 + 0.5).clamped(to: 0...1)
  }
}
