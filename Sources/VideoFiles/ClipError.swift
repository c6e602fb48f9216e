import ImageFiles
import Tensor

/// Why a clip could not be made, read or encoded. `name` is the file's path, or "The clip" for one that came as data.
///
/// What is wrong with a file as such is an `ImageFileError`, what is wrong with a place to write to a `FileWriteError`.
public enum ClipError: Error, Sendable, Equatable, CustomStringConvertible {
  /// There is nothing to show.
  case noFrames
  /// A frame of another size than the first; frames are counted from 1.
  case differentSizes(frame: Int, width: Int, height: Int, firstWidth: Int, firstHeight: Int)
  /// A frame that is shown for no time, or for too long.
  case duration(frame: Int, seconds: Double)
  /// A number outside what it may be.
  case framesPerSecond(Double)
  /// A tensor that is not `[F, H, W, 3]`.
  case unexpectedShape(Shape)
  /// The format is not supported.
  case unknownFormat(name: String)
  /// A file that breaks off, contradicts itself, or uses a form that is not supported.
  case damaged(name: String, reason: String)
  /// More pixels than `Picture.largestSide` and `Clip.largestPixelCount` allow.
  case tooLarge(name: String, width: Int, height: Int, frames: Int)
  /// The name of the file to write has no supported extension.
  case unknownExtension(name: String)
  /// A clip that the format cannot hold.
  case notEncodable(reason: String)
  /// The program that encodes the format is not there.
  case missingProgram(format: ClipFormat)
  /// The program that encodes failed, or something ended it.
  case programFailed(reason: String)

  public var description: String {
    switch self {
    case .noFrames:
      "The clip has no frames; give at least one."
    case .differentSizes(let frame, let width, let height, let firstWidth, let firstHeight):
      "Frame \(frame) has \(width)×\(height) pixels and the first \(firstWidth)×\(firstHeight); all frames of a clip must have the same size."
    case .duration(let frame, let seconds):
      "Frame \(frame) is shown for \(seconds) s; it must be from \(1 / Clip.frameRates.upperBound) to \(1 / Clip.frameRates.lowerBound) s."
    case .framesPerSecond(let rate):
      "\(rate) frames a second cannot be shown; give a number from \(Clip.frameRates.lowerBound) to \(Clip.frameRates.upperBound)."
    case .unexpectedShape(let shape):
      "A tensor of shape \(shape) is no clip; it must be [frames, height, width, 3]."
    case .unknownFormat(let name):
      "\(name) is no clip of a known format; animated WebP, PNG and GIF can be read, so convert it first."
    case .damaged(let name, let reason):
      "\(name) is damaged or uses a rare form of its format (\(reason)); save it again as an animated WebP, PNG or GIF."
    case .tooLarge(let name, let width, let height, let frames):
      "\(name) says that it has \(frames) frames of \(width)×\(height) pixels; at most \(Picture.largestSide) a side and"
        + " \(Clip.largestPixelCount) pixels in all can be read, so make it smaller first."
    case .unknownExtension(let name):
      "\(name) does not say in which format to write a clip; end its name in .webp, .png, .gif, .mp4 or .webm, or in nothing for a folder of pictures."
    case .notEncodable(let reason):
      "The clip cannot be encoded: \(reason)."
    case .missingProgram(let format):
      "\(format.name) is encoded by the program ffmpeg, which is not on the PATH; install it, or write a .webp, .png or .gif file."
    case .programFailed(let reason):
      "ffmpeg could not encode the clip: \(reason)."
    }
  }
}
