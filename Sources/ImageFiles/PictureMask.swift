import Foundation
import Tensor

/// A mask in 8 bits: how much of each pixel of a picture is painted anew, from 0, which is kept, to 255.
///
/// `Picture.mask(from:)` gives the tensor that tasks take. This one is for what programs such as stable-diffusion-webui do to a mask before: they work in 8
/// bits, and so their roundings are part of the result.
public struct PictureMask: Sendable, Equatable {
  /// Pixels.
  public let width: Int
  /// Pixels.
  public let height: Int
  /// Row after row from the top: `width · height` values.
  public let values: [UInt8]

  /// - Precondition: both sides are positive and the count fits them.
  public init(width: Int, height: Int, values: [UInt8]) {
    precondition(width > 0 && height > 0 && values.count == width * height, "\(values.count) values are no mask of \(width)×\(height).")
    (self.width, self.height, self.values) = (width, height, values)
  }

  /// The mask that a picture shows.
  public init(_ picture: Picture, from channel: Picture.MaskChannel = .luminance) {
    self.init(width: picture.width, height: picture.height, values: picture.maskValues(from: channel))
  }

  /// From `[1, height, width, 1]`, 0…1: rounded to the nearest. Values outside are clamped, and NaN becomes 0.
  /// - Precondition: the tensor has this shape, and no side is 0.
  public init(_ tensor: Tensor) {
    precondition(tensor.shape.rank == 4 && tensor.shape[3] == 1, "A tensor of shape \(tensor.shape) is no mask.")
    self.init(width: tensor.shape[2], height: tensor.shape[1], values: tensor.pictureBytes)
  }

  /// As a task takes it, `[1, height, width, 1]`, 0…1.
  public func tensor() -> Tensor { Tensor(values.map { Float($0) / 255 }, shape: [1, height, width, 1]) }

  /// The mask with each of its values changed.
  public func map(_ change: (UInt8) -> UInt8) -> PictureMask { PictureMask(width: width, height: height, values: values.map(change)) }

  /// The whole mask at another size, the same values as Pillow's `Image.resize`.
  /// - Precondition: both sides are positive.
  public func resized(width newWidth: Int, height newHeight: Int, by filter: ResamplingFilter = .lanczos) -> PictureMask {
    guard newWidth != width || newHeight != height else { return self }
    let resampling = PictureResampling(filter, width: width, height: height, toWidth: newWidth, toHeight: newHeight)
    return PictureMask(width: newWidth, height: newHeight, values: resampling(values, channels: 1))
  }

  /// The mask with a soft edge, the same values as OpenCV's `GaussianBlur` with a window of 2 ⌊2.5 σ + ½⌋ + 1 pixels: first along the rows, then along the
  /// columns. At its ends a line is mirrored, and the last pixel is not repeated.
  /// - Parameters:
  ///   - horizontally: the standard deviation σ, in pixels; 0 changes nothing.
  ///   - vertically: the same along the columns.
  /// - Precondition: neither is negative or infinite.
  public func blurred(horizontally: Double, vertically: Double) -> PictureMask {
    blurred(along: .horizontal, deviation: horizontally).blurred(along: .vertical, deviation: vertically)
  }

  /// The mask as latents see it: 0 or 255 in each square of `side` pixels, by its value in the mask that is made so much smaller with a cubic filter.
  /// Pixels at the right and bottom that make no whole square belong to the last one.
  /// - Precondition: `side` is positive.
  public func rounded(inSquaresOf side: Int) -> PictureMask {
    let small = resized(width: max(1, width / side), height: max(1, height / side), by: .bicubic)
    var values: [UInt8] = []
    values.reserveCapacity(width * height)
    for y in 0..<height {
      let line = min(y / side, small.height - 1) * small.width
      for x in 0..<width {
        let value = small.values[line + min(x / side, small.width - 1)]
        values.append(value < 128 ? 0 : 255)
      }
    }
    return PictureMask(width: width, height: height, values: values)
  }

  private func blurred(along axis: Tensor.PixelAxis, deviation: Double) -> PictureMask {
    guard deviation > 0 else { return self }
    let weights = Self.blurWeights(deviation: deviation), reach = weights.count / 2
    let blurred = values.changingLines(axis, width: width, channels: 1) { line in
      let longer = (-reach..<line.count + reach).map { line[mirrored($0, line.count)] }
      return line.indices.map { index in
        var sum = 128
        for (offset, weight) in weights.enumerated() { sum += longer[index + offset] * weight }
        return sum >> 8
      }
    }
    return PictureMask(width: width, height: height, values: blurred)
  }

  /// Of 256ths, whose sum is 256. What rounding takes from a weight goes to the next one on the way to the middle, which gets the rest.
  private static func blurWeights(deviation: Double) -> [Int] {
    let reach = Int(2.5 * deviation + 0.5)
    let bell = (0...reach).map { $0 == 0 ? 1 : exp(-0.5 * Double($0 * $0) / (deviation * deviation)) }
    let sum = 2 * bell.dropFirst().reduce(0, +) + 1
    var left: [Int] = [], carried = 0.0
    for distance in stride(from: reach, to: 0, by: -1) {
      let exact = bell[distance] / sum * 256 + carried, weight = exact.rounded(.toNearestOrEven)
      carried = exact - weight
      left.append(Int(weight))
    }
    return left + [256 - 2 * left.reduce(0, +)] + left.reversed()
  }
}
