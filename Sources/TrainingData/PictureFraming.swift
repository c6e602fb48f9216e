import ImageFiles
import LatentDiffusionComponents
import LatentDiffusionFiles
import Tensor

/// How pictures become the sizes that a network is trained in.
public struct PictureFraming: Sendable, Hashable {
  /// Which part of a picture is taken where its proportions are others.
  public enum Crop: String, Sendable, Hashable, Codable, CaseIterable {
    /// The middle, always the same.
    case center
    /// Another one in each epoch.
    case random
  }

  /// The sizes.
  public var buckets: AspectBuckets
  /// What is cut.
  public var crop: Crop
  /// Whether half of the pictures of each epoch are mirrored, left to right.
  public var flips: Bool

  /// Sizes, what is cut, and whether pictures are mirrored.
  public init(_ buckets: AspectBuckets, crop: Crop = .center, flips: Bool = false) {
    (self.buckets, self.crop, self.flips) = (buckets, crop, flips)
  }

  /// - Parameters:
  ///   - size: of the picture.
  ///   - draw: gives the next random number below a bound.
  func frame(_ size: PixelSize, drawing draw: (_ bound: Int) -> Int) -> PictureFrame {
    let target = buckets.nearest(to: size), resized = PictureFrame.covering(target, with: size)
    let (over, down) = (resized.width - target.width, resized.height - target.height)
    let (left, top) =
      switch crop {
      case .center: (half(over), half(down))
      case .random: (draw(over + 1), draw(down + 1))
      }
    return PictureFrame(resized: resized, left: left, top: top, size: target, isFlipped: flips && draw(2) == 1)
  }

  /// Every frame that a picture can get.
  /// - Throws: `TrainingDataError.randomCrops`.
  func frames(_ size: PixelSize) throws(TrainingDataError) -> [PictureFrame] {
    guard crop == .center else { throw .randomCrops }
    return (flips ? [0, 1] : [0]).map { flip in frame(size) { _ in flip } }
  }
}

/// The part of a picture that a network sees.
public struct PictureFrame: Sendable, Hashable {
  /// The picture covers `size` in this one, and has its own proportions.
  public let resized: PixelSize
  /// Pixels of the resized picture that are cut off at its left, before it is mirrored.
  public let left: Int
  /// Pixels of the resized picture that are cut off at its top.
  public let top: Int
  /// What is left.
  public let size: PixelSize
  /// Whether what is left is mirrored, left to right.
  public let isFlipped: Bool

  /// The smallest size in the proportions of a picture that covers a target. Source: torchvision's `Resize`, which rounds the longer side down.
  static func covering(_ target: PixelSize, with picture: PixelSize) -> PixelSize {
    picture.width * target.height >= target.width * picture.height
      ? PixelSize(width: target.height * picture.width / picture.height, height: target.height)
      : PixelSize(width: target.width, height: target.width * picture.height / picture.width)
  }

  /// The part of the picture.
  ///
  /// - Returns: `[1, height, width, 3]`, -1…1. Source: torchvision's `Resize` with Pillow's `LANCZOS`, and diffusers' `VaeImageProcessor`.
  func tensor(of picture: Picture) -> Tensor {
    let resampling = PictureResampling(
      width: picture.width, height: picture.height, toWidth: resized.width, toHeight: resized.height,
      columns: left..<left + size.width, rows: top..<top + size.height)
    let pixels = resampling(picture.pixels, channels: 3).map { 2 * (Float($0) / 255) - 1 }
    let tensor = Tensor(pixels, shape: [1, size.height, size.width, 3])
    return isFlipped ? tensor.mirrored() : tensor
  }
}

extension Tensor {
  /// Pictures `[N, H, W, C]`, left to right.
  fileprivate func mirrored() -> Tensor {
    let (width, channels) = (shape[2], shape[3]), elements = elements
    return Tensor(
      (0..<count).map { index in
        let (pixel, channel) = index.quotientAndRemainder(dividingBy: channels)
        return elements[(pixel / width * width + width - 1 - pixel % width) * channels + channel]
      }, shape: shape)
  }
}

/// Half of it; of an odd number, the even neighbour. Source: torchvision's `CenterCrop`, by Python's `round`.
private func half(_ pixels: Int) -> Int { Int((Double(pixels) / 2).rounded(.toNearestOrEven)) }

/// A picture, and the part of it that a network sees.
public struct FramedPicture: Sendable {
  /// The whole picture.
  public let picture: CaptionedPicture
  /// The part.
  public let frame: PictureFrame

  /// - Returns: `[1, height, width, 3]`, -1…1. The file is read now.
  /// - Throws: `TrainingDataError.changed`.
  public func tensor() throws(TrainingDataError) -> Tensor { frame.tensor(of: try picture.picture()) }

  /// What models of the kind of SDXL are told of it: the size of the original, and what was cut off at the top and left of the resized picture. Of a mirrored
  /// one, that is what was cut off at its right. Source: diffusers' `train_text_to_image_sdxl.py`, which mirrors before it cuts.
  public var sizes: SizeConditioning {
    let left = frame.isFlipped ? frame.resized.width - frame.left - frame.size.width : frame.left
    return SizeConditioning(original: picture.size, crop: .init(top: frame.top, left: left))
  }

  /// Of the picture's pixels and of the part.
  var content: ContentHash {
    var hash = picture.content
    for number in [frame.resized.width, frame.resized.height, frame.left, frame.top, frame.size.width, frame.size.height] {
      hash.add(number)
    }
    hash.add(frame.isFlipped ? 1 : 0)
    return hash
  }
}
