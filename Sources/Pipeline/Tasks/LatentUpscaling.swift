import LatentDiffusionComponents
import Tensor

/// Doubles a picture's sides. The predictor sees the latents of the small picture beside those of the large one. Source: diffusers'
/// `StableDiffusionLatentUpscalePipeline`.
public struct LatentUpscaling: GenerationTask {
  /// What becomes twice as wide and twice as high. Latents save the way through the encoder.
  public var image: SourceImage

  /// - Parameter image: what becomes twice as wide and twice as high.
  public init(_ image: SourceImage) { self.image = image }

  /// Features of how much noise the small picture has: none, whose sinusoids are so many ones and zeros.
  package static let noiseFeatures = (name: "noise_level_embed", count: 128)
  private static let factor = 2

  private var imageToImage: ImageToImage { ImageToImage(image) }

  public var name: String { "latent upscaling" }
  public var inputs: [(name: String, tensor: Tensor)] { imageToImage.inputs }
  public func inputChannels(latentChannels: Int) -> [Int] { [2 * latentChannels] }
  public func usualSettings(ofConsistencyModel: Bool) -> GenerationSettings { GenerationSettings(steps: 75, guidance: 9) }
  public func check(latentChannels: Int) throws(GenerationError) { try imageToImage.check(latentChannels: latentChannels) }

  public func source(scale: Int) -> TaskSource {
    func doubled(_ size: PixelSize) -> PixelSize { PixelSize(width: Self.factor * size.width, height: Self.factor * size.height) }
    return switch imageToImage.source(scale: scale) {
    case .nothing: .nothing
    case .pixels(let size): .pixels(doubled(size))
    case .latents(let size): .latents(doubled(size))
    }
  }

  /// - Throws: `GenerationError` where another model began the denoising, since nothing here could go on with its latents.
  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    guard !preparation.isUnderWay else {
      throw GenerationError.outOfRange(name: "The start of denoising", value: "given", allowed: "left out for latent upscaling")
    }
    let (small, count) = (try smallLatents(&preparation), Self.noiseFeatures.count / 2)
    let noise = Tensor(Array(repeating: 1, count: count) + Array(repeating: 0, count: count), shape: [1, 2 * count])
    let latents = preparation.drawnNoise() * preparation.scheduler.initialNoiseScale
    return LoopStart(
      latents: latents, beside: small.resizedNearest(height: Self.factor * small.shape[1], width: Self.factor * small.shape[2]),
      inputs: [Self.noiseFeatures.name: noise.repeated(latents.shape[0])])
  }

  /// `[N, h/2, w/2, C]`.
  private func smallLatents(_ preparation: inout Preparation) throws -> Tensor {
    switch image {
    case .latents(let latents): return preparation.repeated(latents)
    case .pixels(let picture):
      let scale = preparation.spatialScale, shape = preparation.latentShape
      let size = PixelSize(width: shape[2] * scale / Self.factor, height: shape[1] * scale / Self.factor)
      return try preparation.sampledLatents(of: picture.resized(to: size, mode: preparation.resizeMode))
    }
  }
}
