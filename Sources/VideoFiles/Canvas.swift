import ImageFiles

/// What an animation has drawn so far. Frames can be smaller than it, transparent, and taken away after they were shown.
struct Canvas {
  /// What becomes of a frame's place before the next frame is drawn.
  enum Disposal {
    /// It stays as it is.
    case none
    /// It becomes transparent.
    case background
    /// It becomes what it was before the frame.
    case previous
  }

  /// Pixels from the left and the top.
  struct Place {
    var x, y, width, height: Int

    /// Whether it has pixels, all of them on a canvas of this size. The differences cannot overflow: sides come from 32 bits.
    func fits(width: Int, height: Int) -> Bool {
      x >= 0 && y >= 0 && self.width > 0 && self.height > 0 && self.width <= width - x && self.height <= height - y
    }
  }

  let width: Int
  let height: Int
  /// Red, green, blue and alpha of each pixel; colours are not multiplied by alpha.
  private var samples: [UInt8]

  init(width: Int, height: Int) {
    (self.width, self.height) = (width, height)
    samples = .init(repeating: 0, count: width * height * 4)
  }

  /// What is shown with a further frame.
  /// - Parameter blends: whether the frame is laid over what is there; otherwise it takes its place.
  /// - Precondition: the picture has the size of the place, which fits.
  mutating func show(_ picture: Picture, at place: Place, blends: Bool, disposal: Disposal) -> Picture {
    let before = disposal == .previous ? samples : []
    draw(picture, at: place, blends: blends)
    defer {
      switch disposal {
      case .none: break
      case .background: clear(place)
      case .previous: samples = before
      }
    }
    return Picture(width: width, height: height, rgba: samples).withoutFullAlpha
  }

  private mutating func draw(_ picture: Picture, at place: Place, blends: Bool) {
    for row in 0..<place.height {
      for column in 0..<place.width {
        let source = row * place.width + column, target = ((place.y + row) * width + place.x + column) * 4
        let opacity = picture.alpha?[source] ?? 255
        if !blends || opacity == 255 {
          for channel in 0..<3 { samples[target + channel] = picture.pixels[source * 3 + channel] }
          samples[target + 3] = opacity
        } else if opacity > 0 {
          blend(picture, source, opacity: Int(opacity), into: target)
        }
      }
    }
  }

  /// "Over", for colours that are not multiplied by alpha: section 13.16 of the PNG specification.
  private mutating func blend(_ picture: Picture, _ source: Int, opacity: Int, into target: Int) {
    let front = opacity * 255, back = (255 - opacity) * Int(samples[target + 3])
    let sum = front + back
    for channel in 0..<3 {
      let mixed = Int(picture.pixels[source * 3 + channel]) * front + Int(samples[target + channel]) * back
      samples[target + channel] = UInt8((mixed + sum / 2) / sum)
    }
    samples[target + 3] = UInt8((sum + 127) / 255)
  }

  private mutating func clear(_ place: Place) {
    for row in place.y..<place.y + place.height {
      let start = (row * width + place.x) * 4
      for index in start..<start + place.width * 4 { samples[index] = 0 }
    }
  }
}

extension Picture {
  /// The picture without alpha where it is opaque.
  var withoutFullAlpha: Picture { alpha?.allSatisfy { $0 == 255 } == true ? withoutAlpha : self }
}
