import LatentDiffusion

/// What a picture shows: one or two figures on a background of one colour.
struct Scene: Sendable, Hashable {
  /// Of a picture, in pixels: two squares beside one another, each with room for a figure.
  static let width = 48, height = 24

  let background: Colour
  /// From left to right. None has the background's colour.
  let figures: [Figure]

  /// `a large red circle and a small green star on a blue background`: the figures from left to right.
  var caption: String {
    figures.map { "a \($0.size) \($0.colour) \($0.form)" }.joined(separator: " and ") + " on a \(background) background"
  }

  /// All words that captions have.
  static let words: [String] =
    ["a", "and", "on", "background"] + Size.allCases.map(\.rawValue) + Colour.allCases.map(\.rawValue) + Form.allCases.map(\.rawValue)
}

/// Something that is seen in a scene.
struct Figure: Sendable, Hashable {
  let form: Form
  let colour: Colour
  let size: Size
  /// Its middle, in pixels from the left and the upper edge.
  let x: Float, y: Float
}

/// The form of a figure.
enum Form: String, CaseIterable, Sendable {
  case circle, square, triangle, star
}

/// The size of a figure.
enum Size: String, CaseIterable, Sendable {
  case small, large

  /// Of a circle, in pixels. Other forms cover about as much as the circle, the star less.
  var radius: Float { self == .large ? 8 : 6 }
}

/// The colours of figures and of backgrounds. Any two of them are at least 0.47 apart.
enum Colour: String, CaseIterable, Sendable {
  case red, green, blue, yellow, pink, cyan, black, white

  /// Red, green and blue, 0…1.
  var rgb: SIMD3<Float> {
    let bytes: SIMD3<Float> =
      switch self {
      case .red: [225, 45, 45]
      case .green: [40, 165, 70]
      case .blue: [45, 85, 225]
      case .yellow: [250, 215, 60]
      case .pink: [245, 120, 190]
      case .cyan: [70, 205, 225]
      case .black: [25, 25, 30]
      case .white: [245, 245, 245]
      }
    return bytes / 255
  }
}

extension Scene {
  /// Whether training never shows a form in this colour on this background. For each form in each colour it is one of the seven backgrounds, so that every form
  /// is seen in every colour, and every colour on every background, in other company.
  static func isHeldOut(_ form: Form, _ colour: Colour, on background: Colour) -> Bool {
    let colours = Colour.allCases
    guard let shape = Form.allCases.firstIndex(of: form), let own = colours.firstIndex(of: colour) else { return false }
    return background == colours[(own + 1 + (2 * shape + own) % (colours.count - 1)) % colours.count]
  }

  /// Many figures anywhere, which may hide one another. It has no caption that makes sense, and no combination that is held out.
  init(crowd count: Int, drawing generator: inout TorchGenerator) {
    let frame = Scene(.seen, figures: 1, drawing: &generator)
    let others = (0..<count).map { _ in
      let possible = Self.combinations(.seen, on: frame.background), (form, colour) = generator.element(of: possible)
      let place = generator.uniform(2)
      return Figure(
        form: form, colour: colour, size: generator.element(of: Size.allCases), x: place[0] * Float(Self.width),
        y: place[1] * Float(Self.height))
    }
    self.init(background: frame.background, figures: others)
  }

  /// The forms and colours that a kind of scene has on a background.
  private static func combinations(_ kind: Kind, on background: Colour) -> [(form: Form, colour: Colour)] {
    Form.allCases.flatMap { form in Colour.allCases.map { (form: form, colour: $0) } }.filter {
      $0.colour != background && isHeldOut($0.form, $0.colour, on: background) == (kind == .unseen)
    }
  }

  /// Which scenes are drawn at random.
  enum Kind {
    /// What training sees: no figure's form, colour and background are a combination that is held out.
    case seen
    /// What measures it: those of every figure are.
    case unseen
  }

  /// A random scene.
  /// - Parameter count: of its figures: 1 or 2.
  init(_ kind: Kind, figures count: Int, drawing generator: inout TorchGenerator) {
    let background = generator.element(of: Colour.allCases)
    let possible = Self.combinations(kind, on: background), width = Float(Self.width)
    let figures = (0..<count).map { index in
      let (form, colour) = generator.element(of: possible), size = generator.element(of: Size.allCases)
      // Two figures have one half of the picture each.
      let (middle, room): (Float, Float) = count == 1 ? (width / 2, 3) : (width / 4 + Float(index) * width / 2, 1)
      let offset = generator.uniform(2).map { 2 * $0 - 1 }
      return Figure(form: form, colour: colour, size: size, x: middle + room * offset[0], y: Float(Self.height) / 2 + offset[1])
    }
    self.init(background: background, figures: figures)
  }
}

extension TorchGenerator {
  /// One of several elements, each as likely as the others.
  mutating func element<Element>(of all: [Element]) -> Element { all[integers(1, below: all.count)[0]] }
}
