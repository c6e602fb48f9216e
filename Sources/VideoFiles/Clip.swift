import Foundation
import ImageFiles
import Tensor

/// Pictures of one size that follow one another in time.
///
/// ```swift
/// let clip = try Clip(frames, framesPerSecond: 12)  // [F, H, W, 3], 0…1
/// try clip.write(to: URL(filePath: "walk.webp"))
/// let back = try Clip(contentsOf: URL(filePath: "walk.webp")).tensor()
/// ```
public struct Clip: Sendable, Equatable {
  /// A picture and how long it is shown.
  public struct Frame: Sendable, Equatable {
    /// What is shown.
    public var picture: Picture
    /// Seconds.
    public var duration: Double

    /// A picture that is shown for so many seconds.
    public init(_ picture: Picture, duration: Double) { (self.picture, self.duration) = (picture, duration) }
  }

  /// At least one; all are of the same size.
  public let frames: [Frame]
  /// A text that tells how the clip was made, such as `GenerationParameters.text`; files that have a place for it carry it.
  public var parameters: String?

  /// What the number of frames a second can be; a frame is shown for as long as the inverse allows.
  public static let frameRates = 0.01...1000.0
  /// The most pixels of all frames together that are read from a file.
  public static let largestPixelCount = 1 << 29

  /// Frames that can each have a time of their own.
  /// - Throws: `ClipError.noFrames`, `.differentSizes`, `.duration`.
  public init(_ frames: [Frame], parameters: String? = nil) throws(ClipError) {
    guard let first = frames.first?.picture else { throw .noFrames }
    for (index, frame) in frames.enumerated() {
      let picture = frame.picture
      guard picture.width == first.width, picture.height == first.height else {
        throw .differentSizes(
          frame: index + 1, width: picture.width, height: picture.height, firstWidth: first.width, firstHeight: first.height)
      }
      guard Self.durations.contains(frame.duration) else { throw .duration(frame: index + 1, seconds: frame.duration) }
    }
    (self.frames, self.parameters) = (frames, parameters)
  }

  /// Frames that are all shown for the same time.
  /// - Throws: `ClipError.noFrames`, `.differentSizes`, `.framesPerSecond`.
  public init(_ pictures: [Picture], framesPerSecond: Double, parameters: String? = nil) throws(ClipError) {
    guard Self.frameRates.contains(framesPerSecond) else { throw .framesPerSecond(framesPerSecond) }
    try self.init(pictures.map { Frame($0, duration: 1 / framesPerSecond) }, parameters: parameters)
  }

  /// Frames of a tensor, which are all shown for the same time.
  /// - Parameter tensor: `[F, H, W, 3]`, 0…1; rounded and clamped as in `Picture.init`.
  /// - Throws: `ClipError.noFrames`, `.unexpectedShape`, `.framesPerSecond`.
  public init(_ tensor: Tensor, framesPerSecond: Double, parameters: String? = nil) throws(ClipError) {
    guard tensor.shape.rank == 4, tensor.shape[3] == 3, tensor.shape[1] > 0, tensor.shape[2] > 0 else {
      throw .unexpectedShape(tensor.shape)
    }
    let pictures = (0..<tensor.shape[0]).map { Picture(tensor, index: $0) }
    try self.init(pictures, framesPerSecond: framesPerSecond, parameters: parameters)
  }

  private static let durations = 1 / frameRates.upperBound...1 / frameRates.lowerBound

  /// Pixels.
  public var width: Int { frames[0].picture.width }
  /// Pixels.
  public var height: Int { frames[0].picture.height }
  /// Seconds, of all frames.
  public var duration: Double { frames.reduce(0) { $0 + $1.duration } }

  /// The number of frames a second where all are shown for the same time; nil where they are not. Files count in hundredths or thousandths of a second, so that
  /// times which differ by no more than a hundredth are the same.
  public var framesPerSecond: Double? {
    let times = frames.map(\.duration)
    guard let shortest = times.min(), let longest = times.max(), longest - shortest < 0.0101 else { return nil }
    return shortest == longest ? 1 / shortest : Double(frames.count) / duration
  }

  /// The colours as `[F, H, W, 3]`, 0…1, on white where a frame is transparent.
  public func tensor() -> Tensor { Tensor.concatenated(frames.map { $0.picture.tensor() }, axis: 0) }

  /// How long each frame is shown in whole units. They add up to the whole time, rounded: what one frame is too long, a later one is too short.
  /// - Parameter units: a second.
  func durations(units: Double) -> [Int] {
    var (end, last) = (0.0, 0)
    return frames.map { frame in
      end += frame.duration
      let whole = max(last + 1, Int((end * units).rounded()))
      defer { last = whole }
      return whole - last
    }
  }

  /// The frames with alpha, all of them, where any has it.
  var uniformPictures: [Picture] {
    let pictures = frames.map(\.picture)
    guard pictures.contains(where: { $0.alpha != nil }) else { return pictures }
    return pictures.map {
      Picture(width: $0.width, height: $0.height, pixels: $0.pixels, alpha: $0.alpha ?? .init(repeating: 255, count: $0.width * $0.height))
    }
  }
}
