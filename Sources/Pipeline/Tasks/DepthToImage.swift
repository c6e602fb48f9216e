import LatentDiffusionComponents
import Tensor

/// From a picture with noise on it, with a picture's depth beside the latents. Source: diffusers' `StableDiffusionDepth2ImgPipeline`, given a
/// `depth_map`.
public struct DepthToImage: GenerationTask {
  /// What it starts from.
  public var image: SourceImage
  /// `[N, H, W, 1]`: the larger, the nearer, in any unit. One of another size than the picture is resampled.
  public var depth: Tensor
  public var strength: Double

  /// - Parameters:
  ///   - image: what it starts from.
  ///   - depth: `[N, H, W, 1]`, or one for all pictures: the larger, the nearer.
  ///   - strength: the part of the steps that are run, 0…1.
  public init(_ image: SourceImage, depth: Tensor, strength: Double = 0.8) {
    (self.image, self.depth, self.strength) = (image, depth, strength)
  }

  private var imageToImage: ImageToImage { ImageToImage(image, strength: strength) }

  public var name: String { "depth-to-image" }
  public var inputs: [(name: String, tensor: Tensor)] { imageToImage.inputs + [("The depth", depth)] }
  public func source(scale: Int) -> TaskSource { imageToImage.source(scale: scale) }
  public func inputChannels(latentChannels: Int) -> [Int] { [latentChannels + 1] }

  public func check(latentChannels: Int) throws(GenerationError) {
    try imageToImage.check(latentChannels: latentChannels)
    try depth.checkPicture("The depth", channels: 1)
  }

  public func start(_ preparation: inout Preparation) throws -> LoopStart {
    let depth = try latentDepth(preparation)
    var start = try imageToImage.start(&preparation)
    start.beside = preparation.repeated(depth)
    return start
  }

  /// `[N, h, w, 1]`: the depth at the latents' size, each from -1 to 1.
  private func latentDepth(_ preparation: Preparation) throws(GenerationError) -> Tensor {
    let latents = preparation.latentShape
    return try placed(preparation).interpolatedBicubic(height: latents[1], width: latents[2]).spread(over: -1...1)
  }

  /// The depth with the borders that the picture gets where it takes other proportions.
  private func placed(_ preparation: Preparation) throws(GenerationError) -> Tensor {
    guard preparation.resizeMode != .stretch, case .pixels(let picture) = image else { return depth }
    return preparation.fitted(try depth.spread(over: 0...1).resampled(height: picture.shape[1], width: picture.shape[2]))
  }
}

extension Tensor {
  /// Each picture with its smallest value at one end of a range and its largest at the other.
  /// - Throws: `GenerationError` where all values of a picture are the same: they tell no depth.
  fileprivate func spread(over range: ClosedRange<Float>) throws(GenerationError) -> Tensor {
    var pictures: [Tensor] = []
    for index in 0..<shape[0] {
      let picture = rows(index..<index + 1), values = picture.elements
      guard let least = values.min(), let most = values.max(), most > least, (most - least).isFinite else {
        throw .outOfRange(
          name: "The depth", value: "the same everywhere at the latents' size", allowed: "a picture of near and far places")
      }
      pictures.append((range.upperBound - range.lowerBound) * (picture - least) / (most - least) + range.lowerBound)
    }
    return Tensor.concatenated(pictures, axis: 0)
  }
}
