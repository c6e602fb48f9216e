extension Picture {
  /// The picture where a mask is dark, and elsewhere the colours of what is around, blurred the more the farther away that is. A transparent picture is seen
  /// on white. Where the mask hides everything, the result is black.
  ///
  /// Source: what stable-diffusion-webui does below a mask ("fill"), whose values these are.
  /// - Precondition: the mask has the picture's size.
  public func filled(where mask: PictureMask) -> Picture {
    let visible = premultiplied(hiding: mask)
    var result = Layer(rgba: [UInt8](repeating: 0, count: visible.count))
    // From far to near: what is sharper lies on what is more blurred, several times where it would be too thin.
    for (deviation, count) in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2)] {
      let blurred = Layer(premultiplied: BoxBlur(deviation: Float(deviation))(visible, width: width, channels: 4))
      for _ in 0..<count { result.put(blurred) }
    }
    result.put(Layer(premultiplied: visible))
    return Picture(width: width, height: height, pixels: result.colours)
  }

  /// The picture on another one of its size: the darker a mask, the more of the picture, and the brighter, the more of the other one. Both are seen on white.
  /// What is black in the mask comes back bit by bit. The values are those of Pillow's `alpha_composite`, by which stable-diffusion-webui does it.
  /// - Precondition: the mask and the other picture have the picture's size.
  public func laid(on other: Picture, except mask: PictureMask) -> Picture {
    precondition(other.width == width && other.height == height, "\(other.width)×\(other.height) is not \(width)×\(height).")
    var result = Layer(rgba: other.premultiplied(hiding: mask.map { _ in 0 }))
    result.put(Layer(premultiplied: premultiplied(hiding: mask)))
    return Picture(width: width, height: height, pixels: result.colours)
  }

  /// Red, green and blue times opacity, and the opacity: what a mask leaves.
  private func premultiplied(hiding mask: PictureMask) -> [UInt8] {
    precondition(mask.width == width && mask.height == height, "\(mask.width)×\(mask.height) is not \(width)×\(height).")
    let colours = flattened().pixels
    var rgba: [UInt8] = []
    rgba.reserveCapacity(mask.values.count * 4)
    for (pixel, hidden) in mask.values.enumerated() {
      let opacity = 255 - hidden
      for channel in 0..<3 { rgba.append(UInt8(dividedBy255(Int(colours[pixel * 3 + channel]) * Int(opacity)))) }
      rgba.append(opacity)
    }
    return rgba
  }
}

/// Colours of which each has an opacity.
private struct Layer {
  /// Red, green, blue and opacity of each pixel. Colours are not multiplied by it.
  private(set) var rgba: [UInt8]

  init(rgba: [UInt8]) { self.rgba = rgba }

  /// - Parameter values: colours times opacity, and the opacity. Divisions are rounded down, as Pillow's.
  init(premultiplied values: [UInt8]) {
    rgba = values
    for start in stride(from: 0, to: rgba.count, by: 4) {
      let opacity = Int(rgba[start + 3])
      guard opacity != 0, opacity != 255 else { continue }
      for index in start..<start + 3 { rgba[index] = UInt8(min(255, 255 * Int(rgba[index]) / opacity)) }
    }
  }

  /// Without their opacity.
  var colours: [UInt8] { stride(from: 0, to: rgba.count, by: 4).flatMap { rgba[$0..<$0 + 3] } }

  /// Puts another layer on this one. Source: Porter and Duff 1984, "over", in the whole numbers of Pillow's `alpha_composite`.
  mutating func put(_ other: Layer) {
    for start in stride(from: 0, to: rgba.count, by: 4) {
      let (upper, lower) = (Int(other.rgba[start + 3]), Int(rgba[start + 3]))
      guard upper != 0 else { continue }
      let opacity = upper * 255 + lower * (255 - upper)
      // Shares of the two colours, with 7 bits beyond the 8.
      let share = upper * 255 * 255 << 7 / opacity, rest = 255 << 7 - share
      for index in start..<start + 3 {
        let sum = Int(other.rgba[index]) * share + Int(rgba[index]) * rest + 128 << 7
        rgba[index] = UInt8((sum >> 8 + sum) >> 15)
      }
      rgba[start + 3] = UInt8(dividedBy255(opacity))
    }
  }
}
