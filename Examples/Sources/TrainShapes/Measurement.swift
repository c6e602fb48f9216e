import ImageFiles
import LatentDiffusion

/// How often a model draws what a caption says that it has never seen.
struct Measurement: Sendable {
  /// Of pictures with one figure, and with two.
  struct Count: Sendable {
    var pictures = 0
    /// With the right forms, colours and background.
    var right = 0
    /// The same, and the right sizes.
    var rightSizes = 0
    var share: Double { Double(right) / Double(max(pictures, 1)) }
  }

  private(set) var singles = Count()
  private(set) var pairs = Count()
  /// What was drawn: scene, picture `[1, height, width, 3]`, and whether it is right.
  private(set) var examples: [(scene: Scene, picture: Tensor, isRight: Bool)] = []

  var all: Count {
    Count(
      pictures: singles.pictures + pairs.pictures, right: singles.right + pairs.right, rightSizes: singles.rightSizes + pairs.rightSizes)
  }

  /// - Parameters:
  ///   - count: pictures, half of them with two figures.
  ///   - seed: of the scenes and of the pictures' noise.
  init(of model: DiffusionModel, pictures count: Int, seed: UInt64) async throws {
    var generator = TorchGenerator(seed: seed)
    let scenes = (0..<count).map { Scene(.unseen, figures: 1 + $0 % 2, drawing: &generator) }
    for start in stride(from: 0, to: count, by: 20) {
      let part = Array(scenes[start..<min(start + 20, count)])
      var request = model.request("", seed: seed &+ UInt64(start))
      request.prompts = part.map { Prompt($0.caption) }
      for (scene, image) in zip(part, try await model.pipeline.images(for: request)) { add(scene, image.image) }
    }
  }

  private mutating func add(_ scene: Scene, _ picture: Tensor) {
    let reading = try? SceneReading(of: picture), isRight = reading?.shows(scene, sizes: false) ?? false
    let all = Count(pictures: 1, right: isRight ? 1 : 0, rightSizes: reading?.shows(scene, sizes: true) == true ? 1 : 0)
    if scene.figures.count == 1 { singles += all } else { pairs += all }
    examples.append((scene, picture, isRight))
  }
}

extension Measurement {
  /// The first pictures in rows, twice as large, with a white line between them.
  func sheet(columns: Int, rows: Int) -> Picture {
    let scale = 2, gap = 4, across = Scene.width * scale + gap, down = Scene.height * scale + gap
    let width = columns * across - gap, height = rows * down - gap
    var pixels = [UInt8](repeating: 255, count: 3 * width * height)
    for (index, example) in examples.prefix(columns * rows).enumerated() {
      let picture = Picture(example.picture), left = index % columns * across, top = index / columns * down
      for y in 0..<Scene.height * scale {
        for x in 0..<Scene.width * scale {
          let from = 3 * (y / scale * Scene.width + x / scale), to = 3 * ((top + y) * width + left + x)
          for channel in 0..<3 { pixels[to + channel] = picture.pixels[from + channel] }
        }
      }
    }
    return Picture(width: width, height: height, pixels: pixels)
  }
}

extension Measurement.Count {
  static func += (sum: inout Self, other: Self) {
    sum = Self(pictures: sum.pictures + other.pictures, right: sum.right + other.right, rightSizes: sum.rightSizes + other.rightSizes)
  }
}
