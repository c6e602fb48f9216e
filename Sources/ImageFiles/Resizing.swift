import Tensor

extension Picture {
  /// How values between pixels are interpolated.
  public enum ResizingFilter: Sendable {
    /// A windowed sinc with three lobes, widened if the picture shrinks, to avoid aliasing; for pictures.
    case lanczos
    /// The nearest pixel; for masks, whose values must not mix.
    case nearest
  }

  /// The whole picture at another size, the same values as Pillow's `Image.resize`.
  /// - Precondition: both sides are positive.
  public func resized(width newWidth: Int, height newHeight: Int, filter: ResizingFilter = .lanczos) -> Picture {
    precondition(newWidth > 0 && newHeight > 0, "A picture cannot be resized to \(newWidth)×\(newHeight).")
    if newWidth == width, newHeight == height { return self }
    switch filter {
    case .nearest: return resizedToNearest(newWidth, newHeight)
    case .lanczos: return resizedByLanczos(newWidth, newHeight)
    }
  }

  private func resizedToNearest(_ newWidth: Int, _ newHeight: Int) -> Picture {
    let columns = nearestIndices(from: width, to: newWidth)
    let rows = nearestIndices(from: height, to: newHeight)
    func pick(_ plane: [UInt8], _ channels: Int) -> [UInt8] {
      var result: [UInt8] = []
      result.reserveCapacity(newWidth * newHeight * channels)
      for row in rows {
        for column in columns {
          let start = (row * width + column) * channels
          result.append(contentsOf: plane[start..<start + channels])
        }
      }
      return result
    }
    return Picture(width: newWidth, height: newHeight, pixels: pick(pixels, 3), alpha: alpha.map { pick($0, 1) })
  }

  /// Weights colours by their opacity, so that transparent pixels do not bleed into visible ones.
  private func resizedByLanczos(_ newWidth: Int, _ newHeight: Int) -> Picture {
    let resampling = PictureResampling(width: width, height: height, toWidth: newWidth, toHeight: newHeight)
    guard let alpha else { return Picture(width: newWidth, height: newHeight, pixels: resampling(pixels, channels: 3)) }
    let weighted = pixels.indices.map { UInt8(dividedBy255(Int(pixels[$0]) * Int(alpha[$0 / 3]))) }
    let newAlpha = resampling(alpha, channels: 1)
    var colours = resampling(weighted, channels: 3)
    for index in colours.indices {
      let opacity = Int(newAlpha[index / 3])
      if opacity != 0, opacity != 255 { colours[index] = UInt8(min(255, 255 * Int(colours[index]) / opacity)) }
    }
    return Picture(width: newWidth, height: newHeight, pixels: colours, alpha: newAlpha)
  }
}

/// For each new pixel the pixel with the nearest centre. The position is summed step by step, because its rounding decides ties.
private func nearestIndices(from size: Int, to newSize: Int) -> [Int] {
  let step = Double(size) / Double(newSize)
  var position = step * 0.5
  return (0..<newSize).map { _ in
    defer { position += step }
    return min(Int(position), size - 1)
  }
}
