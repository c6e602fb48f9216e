import Foundation
import ImageFiles
import LatentDiffusionComponents
import LatentDiffusionFiles

/// A picture and what it shows. The pixels of a file are read when they are asked for, and not kept.
public struct CaptionedPicture: Sendable {
  /// For people, and to tell pictures apart: the path within the folder of the data.
  public let name: String
  /// What it shows.
  public let caption: String
  /// As it is seen, turned upright.
  public let size: PixelSize
  /// Of the pixels, so a file that is stored anew without loss has the same.
  public let content: ContentHash
  private let source: Source

  private enum Source: Sendable {
    case file(URL)
    case memory(Picture)
  }

  /// A picture in memory. A transparent one is seen on white.
  public init(_ picture: Picture, name: String, caption: String) {
    let picture = picture.flattened()
    (self.name, self.caption, source) = (name, caption, .memory(picture))
    (size, content) = (PixelSize(width: picture.width, height: picture.height), ContentHash(pixelsOf: picture))
  }

  /// A picture in a file, which is read once now, so that a damaged one is found before a training begins.
  ///
  /// - Throws: `ImageFileError`.
  public init(contentsOf url: URL, name: String, caption: String) throws(ImageFileError) {
    let picture = try Picture(contentsOf: url).flattened()
    (self.name, self.caption, source) = (name, caption, .file(url))
    (size, content) = (PixelSize(width: picture.width, height: picture.height), ContentHash(pixelsOf: picture))
  }

  /// The picture, opaque.
  ///
  /// - Throws: `TrainingDataError.changed` where the file cannot be read any more, or holds another picture.
  public func picture() throws(TrainingDataError) -> Picture {
    switch source {
    case .memory(let picture): return picture
    case .file(let url):
      let picture: Picture
      do { picture = try Picture(contentsOf: url).flattened() } catch { throw .changed(name: name, reason: "\(error)") }
      guard ContentHash(pixelsOf: picture) == content else { throw .changed(name: name, reason: "it is another picture") }
      return picture
    }
  }
}

extension ContentHash {
  fileprivate init(pixelsOf picture: Picture) {
    self.init()
    add(picture.width)
    add(picture.height)
    add(picture.pixels)
  }
}
