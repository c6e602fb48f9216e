import Foundation
import LatentDiffusion

/// Measures the checker itself: on drawn scenes, which it must read, and on spoiled ones, which it must not take for what they were.
struct SelfCheck {
  private var generator = TorchGenerator(seed: 7)
  private var failures: [String] = []
  private var count = 0

  /// What went wrong, one line each; empty if all was right.
  /// - Parameter scenes: how many are drawn.
  static func problems(scenes: Int) -> (checks: Int, failures: [String]) {
    var check = Self()
    for index in 0..<scenes { check.run(Scene(index % 3 == 0 ? .unseen : .seen, figures: 1 + index % 2, drawing: &check.generator)) }
    return (check.count, check.failures)
  }

  private mutating func run(_ scene: Scene) {
    let picture = scene.drawn()
    expect(picture, "drawn", shows: scene, true)
    let blurred = Self.blurred(picture)
    expect(blurred, "blurred", shows: scene, true)
    expect(noisy(blurred, deviation: 0.04), "blurred and noisy", shows: scene, true)
    for (name, other) in spoiled(scene) { expect(noisy(other.drawn(), deviation: 0.02), name, shows: scene, false) }
    expect(Self.cut(picture, below: scene.figures[0].y), "with half a figure", shows: scene, false)
    expect(noisy(Tensor(repeating: 0.5, shape: picture.shape), deviation: 0.3), "noise alone", shows: scene, false)
  }

  private mutating func expect(_ picture: Tensor, _ name: String, shows scene: Scene, _ expected: Bool) {
    count += 1
    let reading = Result { () throws(SceneReading.Problem) in try SceneReading(of: picture) }
    let shows = (try? reading.get().shows(scene, sizes: true)) ?? false
    if shows != expected { failures.append("\(scene.caption), \(name): \(reading)") }
  }

  /// Scenes that differ in one thing.
  private mutating func spoiled(_ scene: Scene) -> [(name: String, scene: Scene)] {
    let index = generator.integers(1, below: scene.figures.count)[0], old = scene.figures[index]
    func with(_ figure: Figure?) -> Scene {
      var figures = scene.figures
      figures.replaceSubrange(index...index, with: figure.map { [$0] } ?? [])
      return Scene(background: scene.background, figures: figures)
    }
    func figure(_ form: Form? = nil, _ colour: Colour? = nil, _ size: Size? = nil) -> Figure {
      Figure(form: form ?? old.form, colour: colour ?? old.colour, size: size ?? old.size, x: old.x, y: old.y)
    }
    let used = Set(scene.figures.map(\.colour) + [scene.background])
    let colour = generator.element(of: Colour.allCases.filter { !used.contains($0) })
    let form = generator.element(of: Form.allCases.filter { $0 != old.form })
    var spoiled: [(name: String, scene: Scene)] = [
      ("with another form", with(figure(form))), ("with another colour", with(figure(nil, colour))),
      ("with another size", with(figure(nil, nil, old.size == .small ? .large : .small))), ("with a figure less", with(nil)),
      ("on another background", Scene(background: colour, figures: scene.figures)),
    ]
    if scene.figures.count == 1 {
      let more = Figure(form: .square, colour: colour, size: .small, x: 6, y: Float(Scene.height) / 2)
      spoiled.append(("with a figure more", Scene(background: scene.background, figures: [more] + scene.figures)))
    }
    return spoiled
  }

  private mutating func noisy(_ picture: Tensor, deviation: Float) -> Tensor {
    let noise = generator.normal(picture.count)
    return Tensor(zip(picture.elements, noise).map { min(max($0 + deviation * $1, 0), 1) }, shape: picture.shape)
  }

  /// Every pixel averaged with its neighbours, as ¼ ½ ¼ in both directions: a Gaussian's width of 0.7 pixels.
  private static func blurred(_ picture: Tensor) -> Tensor {
    func blurred(_ values: [Float], step: Int, end: Int, place: (Int) -> Int) -> [Float] {
      values.indices.map { index in
        let here = place(index)
        let before = here == 0 ? index : index - step, after = here == end - 1 ? index : index + step
        return 0.25 * values[before] + 0.5 * values[index] + 0.25 * values[after]
      }
    }
    let across = blurred(picture.elements, step: 3, end: Scene.width) { $0 / 3 % Scene.width }
    return Tensor(blurred(across, step: 3 * Scene.width, end: Scene.height) { $0 / (3 * Scene.width) }, shape: picture.shape)
  }

  /// Everything below a height shows the first row's colours.
  private static func cut(_ picture: Tensor, below height: Float) -> Tensor {
    let row = 3 * Scene.width, values = picture.elements
    return Tensor(values.indices.map { values[Float($0 / row) < height ? $0 : $0 % row] }, shape: picture.shape)
  }
}
