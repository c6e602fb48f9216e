import Tensor

/// An 8-bit picture in memory: sRGB colours and, if its file has one, an alpha channel.
public struct Picture: Sendable, Equatable {
  /// Pixels.
  public let width: Int
  /// Pixels.
  public let height: Int
  /// Red, green, blue of each pixel, row after row from the top: `width · height · 3` values. They are not multiplied by alpha.
  public let pixels: [UInt8]
  /// The opacity of each pixel, `width · height` values; nil for an opaque picture.
  public let alpha: [UInt8]?

  /// The longest side of a picture that is read from a file.
  public static let largestSide = 16384
  /// The most pixels of a picture that is read from a file.
  public static let largestPixelCount = 1 << 28
  /// The longest file that is read, in bytes.
  public static let largestFile = 1 << 30

  /// - Precondition: both sides are positive and the counts fit them.
  public init(width: Int, height: Int, pixels: [UInt8], alpha: [UInt8]? = nil) {
    precondition(width > 0 && height > 0, "A picture of \(width)×\(height) has no pixels.")
    precondition(pixels.count == Shape([height, width, 3]).count, "\(pixels.count) values cannot fill \(width)×\(height) pixels.")
    precondition(alpha == nil || alpha?.count == width * height, "Alpha must have one value a pixel.")
    self.width = width
    self.height = height
    self.pixels = pixels
    self.alpha = alpha
  }

  /// The same colours without their alpha, so that transparent pixels show, as Pillow's `convert("RGB")`.
  public var withoutAlpha: Picture { Picture(width: width, height: height, pixels: pixels) }

  /// The picture on a background of one colour, opaque.
  public func flattened(overRed red: UInt8 = 255, green: UInt8 = 255, blue: UInt8 = 255) -> Picture {
    guard let alpha else { return self }
    let background = [Int(red), Int(green), Int(blue)]
    var result = pixels
    for (pixel, opacity) in alpha.enumerated() where opacity != 255 {
      let opacity = Int(opacity)
      for channel in 0..<3 {
        let mixed = Int(pixels[pixel * 3 + channel]) * opacity + background[channel] * (255 - opacity)
        result[pixel * 3 + channel] = UInt8(dividedBy255(mixed))
      }
    }
    return Picture(width: width, height: height, pixels: result)
  }
}

/// `value / 255`, rounded to the nearest, for `value` of at most 255².
func dividedBy255(_ value: Int) -> Int {
  let rounded = value + 128
  return (rounded + rounded >> 8) >> 8
}

extension Picture {
  /// The channel of a picture that holds a mask.
  public enum MaskChannel: Sendable {
    /// The brightness of each pixel; alpha is ignored.
    case luminance
    /// The opacity of each pixel; 1 everywhere in an opaque picture.
    case alpha
  }

  /// The colours as `[1, height, width, 3]`, 0…1, on white if the picture is transparent.
  public func tensor() -> Tensor {
    Tensor(flattened().pixels.map { Float($0) / 255 }, shape: [1, height, width, 3])
  }

  /// A mask as `[1, height, width, 1]`, 0…1. Luminance is that of ITU-R 601, as Pillow's `convert("L")`.
  public func mask(from channel: MaskChannel = .luminance) -> Tensor { PictureMask(self, from: channel).tensor() }

  /// The values of a mask, 0…255.
  func maskValues(from channel: MaskChannel) -> [UInt8] {
    switch channel {
    case .luminance:
      (0..<width * height).map { pixel in
        let red = Int(pixels[pixel * 3]), green = Int(pixels[pixel * 3 + 1]), blue = Int(pixels[pixel * 3 + 2])
        return UInt8((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)
      }
    case .alpha: alpha ?? [UInt8](repeating: 255, count: width * height)
    }
  }

  /// One picture of a batch `[N, height, width, 3]` of colours 0…1, rounded to the nearest. Values outside are clamped, and NaN
  /// becomes 0.
  /// - Precondition: the tensor has this shape, no side is 0, and `index` is below N.
  public init(_ tensor: Tensor, index: Int = 0) {
    precondition(tensor.shape.rank == 4 && tensor.shape[3] == 3, "A tensor of shape \(tensor.shape) is no batch of RGB pictures.")
    precondition(index >= 0 && index < tensor.shape[0], "A tensor of shape \(tensor.shape) has no picture \(index).")
    self.init(width: tensor.shape[2], height: tensor.shape[1], pixels: tensor.rows(index..<index + 1).pictureBytes)
  }
}

extension Picture {
  /// From red, green, blue and alpha of each pixel.
  package init(width: Int, height: Int, rgba: [UInt8]) {
    var pixels: [UInt8] = []
    pixels.reserveCapacity(rgba.count / 4 * 3)
    for start in stride(from: 0, to: rgba.count, by: 4) { pixels.append(contentsOf: rgba[start..<start + 3]) }
    let alpha = stride(from: 3, to: rgba.count, by: 4).map { rgba[$0] }
    self.init(width: width, height: height, pixels: pixels, alpha: alpha)
  }

  /// Red, green, blue and alpha of each pixel; nil for an opaque picture.
  package var rgba: [UInt8]? {
    alpha.map { alpha in
      alpha.indices.flatMap { [pixels[$0 * 3], pixels[$0 * 3 + 1], pixels[$0 * 3 + 2], alpha[$0]] }
    }
  }
}
