import ImageFiles

/// At most 256 colours for all frames of a clip.
///
/// The colours themselves where there are no more. Otherwise those of Heckbert's median cut ("Color image quantization for frame buffer display", 1982) with
/// the box of the largest squared error cut first, moved to the means of their pixels by Lloyd's algorithm.
struct Palette {
  struct Colour: Hashable {
    var red: UInt8 = 0, green: UInt8 = 0, blue: UInt8 = 0
  }
  static let size = 256

  let colours: [Colour]
  /// Whether every pixel of the frames has one of the colours.
  let isExact: Bool
  /// The root of the mean square of a channel's distance to the nearest colour, in levels.
  let distance: Float

  init(of pictures: [Picture]) throws(CancellationError) {
    if let own = Self.ownColours(of: pictures) {
      (colours, isExact, distance) = (own, true, 0)
      return
    }
    let cells = Cell.histogram(of: pictures)
    var means = Self.medianCut(cells)
    for _ in 0..<8 {
      guard !Task.isCancelled else { throw CancellationError() }
      means = Self.moved(means, cells)
    }
    let squares = cells.reduce(0) { $0 + $1.count * $1.mean.squaredDistance(to: means[means.nearest($1.mean)]) }
    let count = cells.reduce(0) { $0 + $1.count }
    colours = means.map { Colour(red: level($0.x), green: level($0.y), blue: level($0.z)) }
    (isExact, distance) = (false, (squares / max(count, 1) / 3).squareRoot())
  }

  /// All colours of the pictures, sorted; nil if they are too many.
  private static func ownColours(of pictures: [Picture]) -> [Colour]? {
    var found: Set<Colour> = []
    for picture in pictures {
      for start in stride(from: 0, to: picture.pixels.count, by: 3) {
        found.insert(picture.colour(at: start))
        if found.count > size { return nil }
      }
    }
    return found.sorted { ($0.red, $0.green, $0.blue) < ($1.red, $1.green, $1.blue) }
  }

  private static func medianCut(_ cells: [Cell]) -> [SIMD3<Float>] {
    var boxes = [Box(cells)]
    while boxes.count < size, let index = boxes.indices.max(by: { boxes[$0].error < boxes[$1].error }), let halves = boxes[index].halves {
      boxes[index] = halves.0
      boxes.append(halves.1)
    }
    return boxes.map(\.mean)
  }

  /// The colours, each at the mean of the pixels that are nearest to it.
  private static func moved(_ means: [SIMD3<Float>], _ cells: [Cell]) -> [SIMD3<Float>] {
    var sums = [SIMD3<Float>](repeating: .zero, count: means.count), counts = [Float](repeating: 0, count: means.count)
    for cell in cells {
      let nearest = means.nearest(cell.mean)
      sums[nearest] += cell.count * cell.mean
      counts[nearest] += cell.count
    }
    return means.indices.map { counts[$0] > 0 ? sums[$0] / counts[$0] : means[$0] }
  }
}

/// The pixels of a small cube of colours.
private struct Cell {
  var count: Float = 0
  var mean = SIMD3<Float>.zero

  /// Cells of 5 bits a channel that have pixels, in the order of their colours.
  static func histogram(of pictures: [Picture]) -> [Cell] {
    var counts = [Int](repeating: 0, count: 1 << 15), sums = [SIMD3<Int>](repeating: .zero, count: 1 << 15)
    for picture in pictures {
      for start in stride(from: 0, to: picture.pixels.count, by: 3) {
        let colour = SIMD3(Int(picture.pixels[start]), Int(picture.pixels[start + 1]), Int(picture.pixels[start + 2]))
        let cell = (colour.x >> 3) << 10 | (colour.y >> 3) << 5 | colour.z >> 3
        counts[cell] += 1
        sums[cell] &+= colour
      }
    }
    return counts.indices.filter { counts[$0] > 0 }.map { Cell(count: Float(counts[$0]), mean: SIMD3<Float>(sums[$0]) / Float(counts[$0])) }
  }
}

/// Cells that are to get one colour.
private struct Box {
  let cells: [Cell]
  let mean: SIMD3<Float>
  /// The sum of the squared distances of the pixels to the mean, by channel.
  private let errors: SIMD3<Float>

  init(_ cells: [Cell]) {
    self.cells = cells
    let count = cells.reduce(0) { $0 + $1.count }
    let mean = cells.reduce(SIMD3<Float>.zero) { $0 + $1.count * $1.mean } / count
    errors = cells.reduce(.zero) { $0 + $1.count * ($1.mean - mean) * ($1.mean - mean) }
    self.mean = mean
  }

  var error: Float { errors.sum() }

  /// The box cut at its mean, across the channel of the largest error; nil if it has one colour.
  var halves: (Box, Box)? {
    let channel = (0..<3).max { errors[$0] < errors[$1] } ?? 0
    let (low, high) = (cells.filter { $0.mean[channel] <= mean[channel] }, cells.filter { $0.mean[channel] > mean[channel] })
    return low.isEmpty || high.isEmpty ? nil : (Box(low), Box(high))
  }
}

extension Palette {
  /// Finds the palette's colour for every pixel.
  struct Lookup {
    private let palette: Palette
    private let colours: [SIMD3<Float>]
    private let exact: [Colour: UInt8]
    /// The nearest colour to each of 6 bits a channel, as far as it was asked for; -1 where it was not.
    private var nearest: [Int16]

    init(_ palette: Palette) {
      self.palette = palette
      colours = palette.colours.map { SIMD3(Float($0.red), Float($0.green), Float($0.blue)) }
      let numbered = palette.isExact ? palette.colours.enumerated().map { ($1, UInt8($0)) } : []
      exact = Dictionary(numbered) { first, _ in first }
      nearest = .init(repeating: -1, count: palette.isExact ? 0 : 1 << 18)
    }

    /// An index for each pixel.
    ///
    /// Where colours are missing, thresholds that depend on the pixel's place alone are added (Bayer's matrix). What does not move keeps its dots from frame to
    /// frame, where error diffusion would let them flicker.
    mutating func indices(of picture: Picture) -> [UInt8] {
      guard palette.isExact else { return dithered(picture) }
      return stride(from: 0, to: picture.pixels.count, by: 3).map { exact[picture.colour(at: $0)] ?? 0 }
    }

    private mutating func dithered(_ picture: Picture) -> [UInt8] {
      // Colours that are Δ apart are missed by Δ/√12 in the root mean square, and thresholds span ±Δ/2.
      let amplitude = palette.distance * Float(3).squareRoot()
      var result = [UInt8](repeating: 0, count: picture.width * picture.height)
      for row in 0..<picture.height {
        for column in 0..<picture.width {
          let pixel = row * picture.width + column
          let shift = amplitude * bayer[(row & 7) * 8 + column & 7]
          let cell = (0..<3).reduce(0) { $0 << 6 | Int(level(Float(picture.pixels[pixel * 3 + $1]) + shift)) >> 2 }
          result[pixel] = index(of: cell)
        }
      }
      return result
    }

    private mutating func index(of cell: Int) -> UInt8 {
      if nearest[cell] < 0 {
        let centre = SIMD3(Float(cell >> 12), Float(cell >> 6 & 63), Float(cell & 63)) * 4 + 1.5
        nearest[cell] = Int16(colours.nearest(centre))
      }
      return UInt8(nearest[cell])
    }
  }
}

/// Bayer's matrix of 8×8 ("An optimum method for two-level rendition of continuous-tone pictures", 1973), -1…1 without the ends.
private let bayer: [Float] = (0..<64).map { index in
  let (y, x) = (index >> 3, index & 7)
  // The bits of x ^ y and y take turns, the lowest ones first.
  let value = (0..<3).reduce(0) { $0 << 2 | ((x ^ y) >> $1 & 1) << 1 | y >> $1 & 1 }
  return (Float(value) + 0.5) / 32 - 1
}

private func level(_ value: Float) -> UInt8 { UInt8(min(max(value.rounded(), 0), 255)) }

extension SIMD3<Float> {
  fileprivate func squaredDistance(to other: SIMD3<Float>) -> Float { ((self - other) * (self - other)).sum() }
}

extension [SIMD3<Float>] {
  /// The index of the element that is nearest to a colour, the first of several.
  fileprivate func nearest(_ colour: SIMD3<Float>) -> Int {
    var (best, distance) = (0, Float.infinity)
    for index in indices {
      let found = self[index].squaredDistance(to: colour)
      if found < distance { (best, distance) = (index, found) }
    }
    return best
  }
}

extension Picture {
  fileprivate func colour(at start: Int) -> Palette.Colour {
    Palette.Colour(red: pixels[start], green: pixels[start + 1], blue: pixels[start + 2])
  }
}
