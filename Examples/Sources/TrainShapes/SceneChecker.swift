import LatentDiffusion

/// What a picture shows, found from its pixels alone.
///
/// The background is the colour of most of the picture's edge. What differs from it falls into connected parts. The colour of each part is that of its pixels
/// that differ most, and says how much of every pixel the part covers; its form and size are those of the drawn figure that covers most nearly the same pixels.
struct SceneReading: Sendable, Equatable {
  /// What a picture is of which this cannot be said.
  enum Problem: Error, Equatable {
    /// The edge of the picture has none of the colours.
    case unclearBackground
    /// Something has none of the colours.
    case unclearColour
    /// Something has none of the forms: of the pixels that it or the most similar figure covers, both cover only this part.
    case unclearForm(overlap: Float)
  }

  /// A figure without its place.
  struct Found: Sendable, Equatable {
    let form: Form
    let colour: Colour
    let size: Size
  }

  let background: Colour
  /// From left to right.
  let figures: [Found]

  /// How far a colour may be from the one that it is taken for. Two colours are at least 0.47 apart.
  private static let tolerance: Float = 0.2
  /// How far pixels of a figure are at least from the background.
  private static let contrast: Float = 0.24
  /// A part of fewer pixels is no figure. The smallest figure has 80.
  private static let smallestPart = 12
  /// The least overlap with the most similar figure, as a part of what both cover together.
  private static let leastOverlap: Float = 0.75

  /// - Parameter picture: `[1, height, width, 3]`, 0…1.
  /// - Throws: `Problem`.
  init(of picture: Tensor) throws(Problem) {
    let pixels = PixelGrid(picture)
    let edge = pixels.edge
    guard let background = Colour.nearest(to: edge, within: Self.tolerance) else { throw .unclearBackground }
    let differences = pixels.colours.map { Colour.distance($0, edge) }
    var found: [(x: Float, figure: Found)] = []
    for part in pixels.parts(where: { differences[$0] > Self.contrast }) where part.count >= Self.smallestPart {
      let usual = Self.median(part.map { differences[$0] })
      let colour = Self.median(part.filter { differences[$0] >= usual }.map { pixels.colours[$0] })
      guard let name = Colour.nearest(to: colour, within: Self.tolerance), name != background else { throw .unclearColour }
      let covered = pixels.coverage(of: part, from: edge, to: colour)
      let (figure, overlap) = Self.mostSimilar(to: covered)
      guard let figure, overlap >= Self.leastOverlap else { throw .unclearForm(overlap: overlap) }
      found.append((figure.x, Found(form: figure.form, colour: name, size: figure.size)))
    }
    self.background = background
    figures = found.sorted { $0.x < $1.x }.map(\.figure)
  }

  /// Whether it is what a caption of this scene asks for. Where the figures are does not count.
  /// - Parameter sizes: whether their sizes count.
  func shows(_ scene: Scene, sizes: Bool) -> Bool {
    background == scene.background && figures.count == scene.figures.count
      && zip(figures, scene.figures).allSatisfy { $0.form == $1.form && $0.colour == $1.colour && (!sizes || $0.size == $1.size) }
  }

  /// The figure that covers most nearly the same pixels, its middle no further than a pixel from where the centre of mass says.
  private static func mostSimilar(to covered: Coverage) -> (figure: Figure?, overlap: Float) {
    let centre = covered.centre
    var (best, most): (Figure?, Float) = (nil, 0)
    for form in Form.allCases {
      for size in Size.allCases {
        for step in 0..<25 {
          let x = centre.x + Float(step % 5 - 2) / 2, y = centre.y + Float(step / 5 - 2) / 2
          let lowering = form == .triangle ? Outline.lowering * size.radius : 0
          // The colour does not count here.
          let figure = Figure(form: form, colour: .black, size: size, x: x, y: y - lowering)
          let overlap = covered.overlap(with: figure.coverage())
          if overlap > most { (best, most) = (figure, overlap) }
        }
      }
    }
    return (best, most)
  }

  private static func median(_ values: [Float]) -> Float { values.sorted()[values.count / 2] }
  static func median(_ colours: [SIMD3<Float>]) -> SIMD3<Float> {
    [median(colours.map(\.x)), median(colours.map(\.y)), median(colours.map(\.z))]
  }
}

extension Colour {
  static func distance(_ one: SIMD3<Float>, _ other: SIMD3<Float>) -> Float { ((one - other) * (one - other)).sum().squareRoot() }

  /// The nearest colour, if it is near enough.
  static func nearest(to colour: SIMD3<Float>, within tolerance: Float) -> Colour? {
    let nearest = allCases.min { distance($0.rgb, colour) < distance($1.rgb, colour) }
    return nearest.flatMap { distance($0.rgb, colour) <= tolerance ? $0 : nil }
  }
}

extension Coverage {
  /// The centre of mass, in pixels.
  fileprivate var centre: SIMD2<Float> {
    var (sum, mass): (SIMD2<Float>, Float) = ([0, 0], 0)
    for (index, value) in values.enumerated() where value > 0 {
      sum += value * [Float(index % Scene.width) + 0.5, Float(index / Scene.width) + 0.5]
      mass += value
    }
    return sum / max(mass, 1e-6)
  }

  /// What both cover, as a part of what at least one of them covers.
  fileprivate func overlap(with other: Coverage) -> Float {
    var (both, either): (Float, Float) = (0, 0)
    for (one, two) in zip(values, other.values) {
      both += min(one, two)
      either += max(one, two)
    }
    return both / max(either, 1e-6)
  }
}

/// The pixels of a scene's picture.
private struct PixelGrid {
  private let width = Scene.width, height = Scene.height
  let colours: [SIMD3<Float>]

  init(_ picture: Tensor) {
    let values = picture.elements
    colours = (0..<values.count / 3).map { [values[3 * $0], values[3 * $0 + 1], values[3 * $0 + 2]] }
  }

  /// The usual colour along the edge.
  var edge: SIMD3<Float> {
    SceneReading.median(
      colours.indices.filter { [0, width - 1].contains($0 % width) || [0, height - 1].contains($0 / width) }.map { colours[$0] })
  }

  private func neighbours(of pixel: Int) -> [Int] {
    let column = pixel % width
    var all = [pixel - width, pixel + width].filter(colours.indices.contains)
    if column > 0 { all.append(pixel - 1) }
    if column < width - 1 { all.append(pixel + 1) }
    return all
  }

  /// The connected parts of the pixels that meet a condition.
  func parts(where condition: (Int) -> Bool) -> [[Int]] {
    var isOpen = colours.indices.map(condition), parts: [[Int]] = []
    for start in colours.indices where isOpen[start] {
      var part = [start], next = 0
      isOpen[start] = false
      while next < part.count {
        for pixel in neighbours(of: part[next]) where isOpen[pixel] {
          isOpen[pixel] = false
          part.append(pixel)
        }
        next += 1
      }
      parts.append(part)
    }
    return parts
  }

  /// How much of each pixel of a part, and of those beside it, is of one colour and not of the other.
  func coverage(of part: [Int], from background: SIMD3<Float>, to colour: SIMD3<Float>) -> Coverage {
    let way = colour - background, length = max((way * way).sum(), 1e-6)
    var values = [Float](repeating: 0, count: colours.count)
    for pixel in Set(part + part.flatMap(neighbours)) {
      values[pixel] = min(max(((colours[pixel] - background) * way).sum() / length, 0), 1)
    }
    return Coverage(values: values)
  }
}
