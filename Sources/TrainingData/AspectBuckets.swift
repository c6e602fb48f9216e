import Foundation
import LatentDiffusionComponents

/// The sizes that pictures are trained in: one, or several of about as many pixels in different proportions, so that a wide picture needs no square cut out.
///
/// Source: NovelAI 2022, "Aspect ratio bucketing", with the sizes that kohya's trainers make of it. Which size is the nearest is decided by the logarithm of
/// the proportions here, so that a picture and the same one turned by 90° go to sizes that are turned, too.
public struct AspectBuckets: Sendable, Hashable {
  /// In the order of their widths, then of their heights.
  public let sizes: [PixelSize]

  /// The longest side that a picture can be trained in.
  public static let longestSide = 16384

  /// One size for all pictures.
  ///
  /// - Throws: `TrainingDataError.outOfRange` for sides that are no positive multiples of `multiple`, or too long.
  public init(only size: PixelSize, multiple: Int = 8) throws(TrainingDataError) {
    for side in [size.width, size.height] { try Self.check("Each side of the pictures", side, multiple: multiple) }
    sizes = [size]
  }

  /// Sizes with sides that are multiples of `step` and with at most `resolution`² pixels: for each width the largest height, each turned, and the square.
  ///
  /// - Parameters:
  ///   - resolution: the side of the square, a multiple of `step`.
  ///   - step: between sides, a multiple of 8 for Stable Diffusion.
  ///   - shortest: no side is shorter; nil: half the resolution.
  ///   - longest: no side is longer; nil: twice the resolution.
  /// - Throws: `TrainingDataError.outOfRange` for a resolution that is no multiple of the step, or sides that do not include it.
  public init(resolution: Int, step: Int = 64, shortest: Int? = nil, longest: Int? = nil) throws(TrainingDataError) {
    try Self.check("The resolution", resolution, multiple: step)
    let shortest = shortest ?? (resolution / 2 + step - 1) / step * step
    let longest = longest ?? min(2 * resolution, Self.longestSide / step * step)
    try Self.check("The shortest side", shortest, multiple: step)
    try Self.check("The longest side", longest, multiple: step)
    guard shortest <= resolution else {
      throw .outOfRange(setting: "The shortest side", value: "\(shortest)", allowed: "at most the resolution of \(resolution)")
    }
    guard longest >= resolution else {
      throw .outOfRange(setting: "The longest side", value: "\(longest)", allowed: "at least the resolution of \(resolution)")
    }
    var sizes: Set<PixelSize> = [PixelSize(width: resolution, height: resolution)]
    for width in stride(from: shortest, through: longest, by: step) {
      let height = min(longest, resolution * resolution / width / step * step)
      guard height >= shortest else { continue }
      sizes.formUnion([PixelSize(width: width, height: height), PixelSize(width: height, height: width)])
    }
    self.sizes = sizes.sorted { ($0.width, $0.height) < ($1.width, $1.height) }
  }

  /// The size whose proportions are nearest to those of a picture; of two that are as near, the one with more pixels, then the first.
  public func nearest(to picture: PixelSize) -> PixelSize {
    func distance(_ size: PixelSize) -> Double {
      abs(log(Double(size.width) / Double(size.height) * Double(picture.height) / Double(picture.width)))
    }
    return sizes.min { a, b in (distance(a), -a.width * a.height) < (distance(b), -b.width * b.height) } ?? picture
  }

  private static func check(_ name: String, _ side: Int, multiple: Int) throws(TrainingDataError) {
    guard (1...longestSide).contains(multiple) else {
      throw .outOfRange(setting: "The step between sides", value: "\(multiple)", allowed: "from 1 to \(longestSide)")
    }
    guard (1...longestSide).contains(side), side.isMultiple(of: multiple) else {
      throw .outOfRange(setting: name, value: "\(side)", allowed: "a multiple of \(multiple), at most \(longestSide)")
    }
  }
}
