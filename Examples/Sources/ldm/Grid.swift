import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

struct Grid: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "grid", abstract: "Draws the same with other prompts, seeds or settings, and puts all pictures into one, with labels.",
    discussion: """
      What has several values is an axis: the first goes down, the second across, and there are no more than two. {a|b} in a prompt stands for a prompt with \
      each. Options of the command that draws stand after --.

      Examples:
        ldm grid --prompt "a {red|green} apple" --seed 1 --seed 2 --seed 3 -o apples.png
        ldm grid --prompt sunflower --scheduler euler --scheduler dpmpp-2m --steps 10 --steps 20 -o steps.png -- --seed 7
        ldm grid --command img2img --vary strength="0.4|0.6|0.8" --prompt sunflower -o strengths.png -- --image photo.jpg
      """)

  @Option(name: [.customShort("p"), .long], parsing: .unconditionalSingleValue, help: "What to draw. Several can be given.")
  var prompt: [String] = []
  @Option(parsing: .unconditionalSingleValue, help: "A scheduler. Several can be given.") var scheduler: [String] = []
  @Option(parsing: .unconditionalSingleValue, help: "A number of steps. Several can be given.") var steps: [Int] = []
  @Option(parsing: .unconditionalSingleValue, help: "How closely to follow the prompt. Several can be given.") var guidance: [Double] = []
  @Option(
    parsing: .unconditionalSingleValue,
    help: "What everything random follows from. Several can be given; without any, a random one for all pictures.",
    transform: SeedOptions.parsed)
  var seed: [UInt64] = []
  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("Any other option of the command and its values, with | between. Several can be given.", valueName: "NAME=A|B"),
    transform: { try Axis($0) })
  var vary: [Axis] = []
  @Option(parsing: .unconditional, help: "The command that draws.") var command = "txt2img"
  @Option(name: [.customShort("o"), .long], parsing: .unconditional, help: "Where the picture of all goes: a .png, .jpg or .webp file.")
  var output: String
  @Flag(help: "Draws no labels.") var plain = false
  @Argument(parsing: .postTerminator, help: "Options of the command for all pictures, after --.") var common: [String] = []

  /// An option and its values.
  struct Axis {
    let name: String
    let values: [String]

    init(_ name: String, _ values: [String]) { (self.name, self.values) = (name, values) }

    init(_ text: String) throws {
      guard let sign = text.firstIndex(of: "="), sign > text.startIndex else {
        throw ValidationError("--vary must be NAME=A|B, as in strength=0.4|0.8.")
      }
      name = String(text[..<sign]).replacing("_", with: "-")
      values = text[text.index(after: sign)...].split(separator: "|", omittingEmptySubsequences: false).map(String.init)
      guard !["output", "count", "checkpoint", "json"].contains(name) else { throw ValidationError("--vary cannot vary \(name).") }
    }

    func words(_ index: Int) -> [String] { values.isEmpty ? [] : ["--\(name)", values[index]] }
  }

  /// The most pictures of a grid.
  private static let mostPictures = 10_000

  private var axes: [Axis] {
    [Axis("prompt", prompt.flatMap(Wildcards.expanded))] + vary
      + [
        Axis("scheduler", scheduler), Axis("guidance", guidance.map { "\($0)" }), Axis("steps", steps.map { "\($0)" }),
        Axis("seed", seed.map { "\($0)" }),
      ]
  }

  func validate() throws {
    let many = axes.filter { $0.values.count > 1 }
    guard many.count < 3 else {
      throw ValidationError("\(many.map(\.name).joined(separator: ", ")) have several values, and a grid has two axes; leave some out.")
    }
    let count = many.map(\.values.count).reduce(1, *)
    guard count <= Self.mostPictures else { throw ValidationError("These are \(count) pictures; a grid has at most \(Self.mostPictures).") }
  }

  func run() async throws {
    let url = URL(filePath: output)
    _ = try PictureFormat(extensionOf: url)
    try checkWritable(url)
    var axes = axes
    let names = (common + vary.map { "--" + $0.name }).map { $0.prefix { $0 != "=" } }
    if seed.isEmpty, !names.contains("--seed"), !names.contains("--like") {
      axes[axes.count - 1] = Axis("seed", ["\(UInt64.random(in: 0...UInt64(UInt32.max)))"])
    }
    let many = axes.filter { $0.values.count > 1 }, fixed = axes.filter { $0.values.count == 1 }.flatMap { $0.words(0) }
    // One axis alone goes across.
    let down = many.count == 2 ? many[0] : Axis("", []), across = many.last ?? Axis("", [])
    let progress = Progress()
    do {
      let pictures = try await pictures(down, across, fixed, progress)
      let sheet = ContactSheet(pictures: pictures, down: plain ? [] : down.labels, across: plain ? [] : across.labels)
      let picture = try sheet.picture()
      try Signals.whole { try picture.write(to: url, parameters: parameters(down, across, fixed)) }
      progress.end("\(output): \(picture.width)×\(picture.height), \(pictures.count) × \(pictures.first?.count ?? 0) pictures")
    } catch {
      progress.clear()
      throw error
    }
  }

  /// Rows of pictures, drawn one after the other by the same model.
  private func pictures(_ down: Axis, _ across: Axis, _ fixed: [String], _ progress: Progress) async throws -> [[Picture]] {
    let folder = FileManager.default.temporaryDirectory.appending(path: "ldm-grid-\(UUID().uuidString)", directoryHint: .isDirectory)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appending(path: "picture.png"), rows = max(1, down.values.count), columns = max(1, across.values.count)
    // What makes no sense is said before the first picture is drawn.
    let runs = try (0..<rows).map { row in
      try (0..<columns).map { column in
        try CommandRun(
          [command] + common + fixed + down.words(row) + across.words(column) + ["--output", file.path(percentEncoded: false)])
      }
    }
    var warned: Set<String> = []
    return try await ModelShelf.$current.withValue(ModelShelf()) {
      var pictures: [[Picture]] = []
      for (row, runs) in runs.enumerated() {
        pictures.append([])
        for (column, run) in runs.enumerated() {
          let name = "\(row * columns + column + 1) of \(rows * columns)"
          let (_, warnings) = try await run.drawn { progress.job(name, done: $0, of: $1) }
          for warning in warnings where warned.insert(warning).inserted { progress.warn(warning) }
          pictures[row].append(try Picture(contentsOf: file))
        }
      }
      return pictures
    }
  }

  /// What the file says about how it was made: the words of the command.
  private func parameters(_ down: Axis, _ across: Axis, _ fixed: [String]) -> String {
    let axes = [down, across].filter { !$0.values.isEmpty }.map { "\($0.name): \($0.values.joined(separator: " | "))" }
    return ("Grid of ldm \(command). " + axes.joined(separator: "; ") + "\n" + (common + fixed).joined(separator: " "))
  }
}

extension Grid.Axis {
  /// A prompt says what it is by itself.
  fileprivate var labels: [String] { name == "prompt" ? values : values.map { "\(name) \($0)" } }
}

/// Pictures in rows, with what is different above and beside them.
struct ContactSheet {
  let pictures: [[Picture]]
  /// Beside the rows; none: no labels.
  let down: [String]
  /// Above the columns; none: no labels.
  let across: [String]

  private static let gap = 8

  /// - Throws: a `Failure` where it would be larger than a picture can be.
  func picture() throws -> Picture {
    let all = pictures.flatMap(\.self), gap = Self.gap
    let cell = (width: all.map(\.width).max() ?? 1, height: all.map(\.height).max() ?? 1), columns = pictures.map(\.count).max() ?? 0
    let head = across.map { Lettering.lines($0, width: max(1, cell.width / Lettering.width), most: 4) }
    // Labels beside rows take up to a third of a large picture, and twenty letters beside small ones.
    let letters = max(20, cell.width / 3 / Lettering.width)
    let side = down.map { Lettering.lines($0, width: letters, most: max(1, cell.height / Lettering.height)) }
    let left = (side.flatMap(\.self).map(\.count).max() ?? 0) * Lettering.width + (side.isEmpty ? 0 : gap)
    let top = (head.map(\.count).max() ?? 0) * Lettering.height + (head.isEmpty ? 0 : gap)
    let width = left + gap + columns * (cell.width + gap), height = top + gap + pictures.count * (cell.height + gap)
    guard width <= Picture.largestSide, height <= Picture.largestSide, width * height <= Picture.largestPixelCount else {
      throw Failure(
        "The grid would have \(width)×\(height) pixels, and sides of at most \(Picture.largestSide) can be read; draw fewer or smaller pictures."
      )
    }
    var canvas = Canvas(width: width, height: height)
    func x(_ column: Int) -> Int { left + gap + column * (cell.width + gap) }
    func y(_ row: Int) -> Int { top + gap + row * (cell.height + gap) }
    for (column, lines) in head.enumerated() {
      // Labels stand right above their pictures.
      for (index, line) in lines.reversed().enumerated() {
        Lettering.draw(line, x: x(column), y: top - (index + 1) * Lettering.height, into: &canvas)
      }
    }
    for (row, lines) in side.enumerated() {
      for (index, line) in lines.enumerated() { Lettering.draw(line, x: gap, y: y(row) + index * Lettering.height, into: &canvas) }
    }
    for (row, pictures) in pictures.enumerated() {
      for (column, picture) in pictures.enumerated() { canvas.put(picture, x: x(column), y: y(row)) }
    }
    return canvas.picture
  }
}
