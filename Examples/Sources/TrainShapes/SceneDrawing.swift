import Foundation
import LatentDiffusion

/// How much of each pixel of a scene's picture something covers, 0…1, row after row.
struct Coverage: Sendable {
  var values: [Float]
}

extension Figure {
  /// How much of each pixel it covers: 1 inside, 0 outside, and in between where its edge is less than half a pixel from the pixel's middle.
  func coverage() -> Coverage {
    let outline = Outline(form, radius: size.radius), reach = outline.reach + 1
    var values = [Float](repeating: 0, count: Scene.width * Scene.height)
    func range(_ middle: Float, _ end: Int) -> Range<Int> {
      let first = min(max(0, Int(middle - reach)), end)
      return first..<min(end, max(first, Int(middle + reach) + 1))
    }
    for row in range(y, Scene.height) {
      for column in range(x, Scene.width) {
        let distance = outline.distance(to: [Float(column) + 0.5 - x, Float(row) + 0.5 - y])
        values[row * Scene.width + column] = min(max(0.5 - distance, 0), 1)
      }
    }
    return Coverage(values: values)
  }
}

/// The edge of a form around its middle, in pixels.
struct Outline: Sendable {
  /// Of a polygon; empty for a circle.
  private let corners: [SIMD2<Float>]
  private let radius: Float
  /// How far its most distant point is from the middle.
  let reach: Float

  init(_ form: Form, radius: Float) {
    self.radius = radius
    switch form {
    case .circle:
      corners = []
    case .square:
      let half = 0.886 * radius
      corners = [[-half, -half], [half, -half], [half, half], [-half, half]]
    case .triangle:
      // Its upper corner and its base are about equally far from the middle.
      corners = Self.points(3) { _ in 1.3 * radius }.map { $0 + [0, Self.lowering * radius] }
    case .star:
      corners = Self.points(10) { 1.3 * radius * ($0.isMultiple(of: 2) ? 1 : 0.45) }
    }
    reach = corners.map { ($0 * $0).sum().squareRoot() }.max() ?? radius
  }

  /// How far a triangle's centre of mass is below its middle, in radii.
  static let lowering: Float = 0.2

  /// Points around the middle, the first one at the top.
  private static func points(_ count: Int, distance: (Int) -> Float) -> [SIMD2<Float>] {
    (0..<count).map { index in
      let angle = 2 * Double.pi * Double(index) / Double(count)
      return distance(index) * [Float(sin(angle)), -Float(cos(angle))]
    }
  }

  /// The distance of a point to the edge, negative inside.
  func distance(to point: SIMD2<Float>) -> Float {
    guard var previous = corners.last else { return (point * point).sum().squareRoot() - radius }
    var (square, isInside) = (Float.infinity, false)
    for corner in corners {
      let edge = corner - previous, from = point - previous
      let along = min(max((from * edge).sum() / (edge * edge).sum(), 0), 1)
      let rest = from - along * edge
      square = min(square, (rest * rest).sum())
      // A ray to the right crosses an edge whose ends lie on both sides of it.
      if (previous.y > point.y) != (corner.y > point.y), point.x < previous.x + edge.x * (point.y - previous.y) / edge.y {
        isInside.toggle()
      }
      previous = corner
    }
    return isInside ? -square.squareRoot() : square.squareRoot()
  }
}

extension Scene {
  /// `[1, height, width, 3]`, 0…1.
  func drawn() -> Tensor {
    var pixels = [SIMD3<Float>](repeating: background.rgb, count: Self.width * Self.height)
    for figure in figures {
      for (index, part) in figure.coverage().values.enumerated() where part > 0 {
        pixels[index] += part * (figure.colour.rgb - pixels[index])
      }
    }
    return Tensor(pixels.flatMap { [$0.x, $0.y, $0.z] }, shape: [1, Self.height, Self.width, 3])
  }

  /// Several scenes as networks see them: `[N, height, width, 3]`, -1…1.
  static func batch(_ scenes: [Scene]) -> Tensor {
    Tensor(scenes.flatMap { $0.drawn().elements.map { 2 * $0 - 1 } }, shape: [scenes.count, height, width, 3])
  }
}
