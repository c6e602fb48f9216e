import ImageFiles
import LatentDiffusion

/// The pictures that a job starts from, decoded.
struct SentPictures: Sendable {
  /// What the model sees: the picture, or the part of it around the mask.
  private(set) var image: Picture?
  private(set) var mask: PictureMask?
  /// What is laid on the drawing where the mask is dark; nil: nothing, since the drawing's task does it.
  private var cover: Cover?

  private struct Cover {
    let image: Picture
    let mask: PictureMask
    /// The part that is drawn; nil: all of it.
    let part: MaskedPart?
    let mode: ResizeMode
  }

  /// - Parameters:
  ///   - painting: how the mask is used; nil: the task sees it as it is.
  ///   - size: what is drawn; nil: what the picture's size, or the part's, leads to.
  ///   - mode: how a picture takes this size. A part keeps its proportions.
  /// - Throws: `ImageFileError`.
  init(_ files: RequestFiles, _ painting: MaskPainting?, size: PixelSize?, mode: ResizeMode) throws {
    image = try files.image.map { try Picture(data: $0, name: "The image") }
    let sentMask = try files.mask.map { try Picture(data: $0, name: "The mask") }
    mask = sentMask.map { PictureMask($0) }
    guard let painting, let sent = image?.flattened(), let sentMask else { return }
    let soft = Self.binary(sentMask, isInverted: painting.isInverted).blurred(horizontally: painting.blurX, vertically: painting.blurY)
    let fitting = soft.resized(width: sent.width, height: sent.height)
    if let padding = painting.padding, let part = MaskedPart(of: fitting, padding: padding, size: size) {
      let (image, mask) = (sent.cropped(to: part), fitting.cropped(to: part))
      cover = Cover(image: sent, mask: fitting, part: part, mode: .crop)
      show(image.resized(to: size, mode: .fill), mask.resized(to: size, mode: .fill), painting)
    } else {
      let (image, mask) = (sent.resized(to: size, mode: mode), fitting.resized(to: size, mode: mode))
      cover = Cover(image: image, mask: mask, part: nil, mode: mode)
      show(image, mask, painting)
    }
  }

  private mutating func show(_ picture: Picture, _ mask: PictureMask, _ painting: MaskPainting) {
    (image, self.mask) = (painting.fills ? picture.filled(where: mask) : picture, mask)
  }

  /// What is opaque in a mask with transparent pixels is painted anew, and of others what is bright.
  private static func binary(_ mask: Picture, isInverted: Bool) -> PictureMask {
    let isTransparent = mask.alpha?.contains { $0 < 255 } ?? false
    let found = isTransparent ? PictureMask(mask, from: .alpha).map { $0 > 128 ? 255 : 0 } : PictureMask(mask)
    return isInverted ? found.map { 255 - $0 } : found
  }

  /// What was drawn, with the picture that was sent where the mask is dark.
  func finished(_ drawn: Picture) -> Picture {
    guard let cover else { return drawn }
    if let part = cover.part {
      let fitting = drawn.resized(to: PixelSize(width: part.width, height: part.height), mode: cover.mode)
      return cover.image.laid(on: cover.image.replaced(by: fitting, at: part), except: cover.mask)
    }
    let size = PixelSize(width: drawn.width, height: drawn.height)
    // Its edge is made twice as steep: where the mask is at least half bright, nothing of the picture is left.
    let mask = cover.mask.resized(to: size, mode: cover.mode).map { UInt8(min(2 * Int($0), 255)) }
    return cover.image.resized(to: size, mode: cover.mode).laid(on: drawn, except: mask)
  }
}

/// The part of a picture around a mask.
struct MaskedPart: Sendable, Equatable {
  private(set) var columns: Range<Int>
  private(set) var rows: Range<Int>
  var width: Int { columns.count }
  var height: Int { rows.count }

  /// - Parameter size: whose proportions the part has as far as the picture goes; nil: any.
  /// - Returns: nil for a mask that is black everywhere.
  init?(of mask: PictureMask, padding: Int, size: PixelSize?) {
    var (columns, rows, isEmpty) = (0..<0, 0..<0, true)
    for y in 0..<mask.height {
      for x in 0..<mask.width where mask.values[y * mask.width + x] > 0 {
        columns = isEmpty ? x..<x + 1 : min(columns.lowerBound, x)..<max(columns.upperBound, x + 1)
        rows = isEmpty ? y..<y + 1 : min(rows.lowerBound, y)..<max(rows.upperBound, y + 1)
        isEmpty = false
      }
    }
    guard !isEmpty else { return nil }
    self.columns = max(0, columns.lowerBound - padding)..<min(mask.width, columns.upperBound + padding)
    self.rows = max(0, rows.lowerBound - padding)..<min(mask.height, rows.upperBound + padding)
    guard let size else { return }
    let wide = Double(size.width) / Double(size.height), found = Double(width) / Double(height)
    if found > wide {
      self.rows = self.rows.grown(to: Int(Double(width) / wide), within: mask.height)
    } else {
      self.columns = self.columns.grown(to: Int(Double(height) * wide), within: mask.width)
    }
  }
}

extension Range<Int> {
  /// Grown by as much on both sides, and moved where an end would be outside.
  fileprivate func grown(to length: Int, within limit: Int) -> Range<Int> {
    let length = Swift.min(Swift.max(length, count), limit)
    let start = Swift.min(Swift.max(0, lowerBound - (length - count) / 2), limit - length)
    return start..<start + length
  }
}

extension Picture {
  /// - Parameter size: nil: its own.
  fileprivate func resized(to size: PixelSize?, mode: ResizeMode) -> Picture {
    guard let size, size != PixelSize(width: width, height: height) else { return self }
    return mode == .stretch ? resized(width: size.width, height: size.height) : Picture(tensor().resized(to: size, mode: mode))
  }

  fileprivate func cropped(to part: MaskedPart) -> Picture {
    let pixels = part.rows.flatMap { y in self.pixels[(y * width + part.columns.lowerBound) * 3..<(y * width + part.columns.upperBound) * 3]
    }
    return Picture(width: part.width, height: part.height, pixels: pixels)
  }

  /// Another picture in the place of a part.
  fileprivate func replaced(by other: Picture, at part: MaskedPart) -> Picture {
    var pixels = pixels
    for (row, y) in part.rows.enumerated() {
      let start = (y * width + part.columns.lowerBound) * 3
      pixels.replaceSubrange(start..<start + part.width * 3, with: other.pixels[row * part.width * 3..<(row + 1) * part.width * 3])
    }
    return Picture(width: width, height: height, pixels: pixels)
  }
}

extension PictureMask {
  /// - Parameter size: nil: its own.
  fileprivate func resized(to size: PixelSize?, mode: ResizeMode) -> PictureMask {
    guard let size, size != PixelSize(width: width, height: height) else { return self }
    return mode == .stretch ? resized(width: size.width, height: size.height) : PictureMask(tensor().resized(to: size, mode: mode))
  }

  fileprivate func cropped(to part: MaskedPart) -> PictureMask {
    let values = part.rows.flatMap { y in self.values[y * width + part.columns.lowerBound..<y * width + part.columns.upperBound] }
    return PictureMask(width: part.width, height: part.height, values: values)
  }
}
