import ImageFiles

/// The pictures that a job starts from, decoded.
struct SentPictures: Sendable {
  /// What the model sees: the picture, or the part of it around the mask.
  private(set) var image: Picture?
  private(set) var mask: Picture?
  /// The whole picture and its mask, where the model sees a part.
  private var whole: (image: Picture, mask: Picture, part: MaskedPart)?

  /// - Parameters:
  ///   - padding: pixels around the mask that the model sees; nil: it sees all.
  ///   - size: what is drawn, whose proportions the part has; nil: any.
  /// - Throws: `ImageFileError`.
  init(_ files: RequestFiles, onlyMasked padding: Int?, size: (width: Int, height: Int)?) throws {
    let image = try files.image.map { try Picture(data: $0, name: "The image") }
    let mask = try files.mask.map { try Picture(data: $0, name: "The mask") }
    (self.image, self.mask, whole) = (image, mask, nil)
    guard let padding, let image, let mask else { return }
    let fitting = mask.resized(width: image.width, height: image.height, filter: .nearest)
    guard let part = MaskedPart(of: fitting, padding: padding, size: size) else { return }
    (self.image, self.mask, whole) = (image.cropped(to: part), fitting.cropped(to: part), (image, fitting, part))
  }

  /// What was drawn, put into the picture that it is a part of.
  func finished(_ drawn: Picture) -> Picture {
    guard let (image, mask, part) = whole else { return drawn }
    return image.replaced(by: drawn.resized(width: part.width, height: part.height), at: part, where: mask)
  }
}

/// The part of a picture around a mask.
struct MaskedPart: Sendable, Equatable {
  private(set) var columns: Range<Int>
  private(set) var rows: Range<Int>
  var width: Int { columns.count }
  var height: Int { rows.count }

  /// - Parameter size: whose proportions the part has as far as the picture goes; nil: any.
  /// - Returns: nil for a mask that is nowhere white.
  init?(of mask: Picture, padding: Int, size: (width: Int, height: Int)?) {
    var (columns, rows, isEmpty) = (0..<0, 0..<0, true)
    for y in 0..<mask.height {
      for x in 0..<mask.width where mask.isWhite(x, y) {
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
  /// Whether a mask's pixel is to be painted, by its brightness.
  fileprivate func isWhite(_ x: Int, _ y: Int) -> Bool {
    let place = (y * width + x) * 3
    return Int(pixels[place]) + Int(pixels[place + 1]) + Int(pixels[place + 2]) >= 3 * 128
  }

  fileprivate func cropped(to part: MaskedPart) -> Picture {
    let pixels = part.rows.flatMap { y in self.pixels[(y * width + part.columns.lowerBound) * 3..<(y * width + part.columns.upperBound) * 3]
    }
    return Picture(width: part.width, height: part.height, pixels: pixels)
  }

  /// Another picture in the place of a part, where a mask is white.
  fileprivate func replaced(by other: Picture, at part: MaskedPart, where mask: Picture) -> Picture {
    var pixels = pixels
    for (row, y) in part.rows.enumerated() {
      for (column, x) in part.columns.enumerated() where mask.isWhite(x, y) {
        for channel in 0..<3 { pixels[(y * width + x) * 3 + channel] = other.pixels[(row * part.width + column) * 3 + channel] }
      }
    }
    return Picture(width: width, height: height, pixels: pixels)
  }
}
