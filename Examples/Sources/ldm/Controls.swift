import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

extension ScaledFile {
  fileprivate var name: String { URL(filePath: path).deletingPathExtension().lastPathComponent }
}

/// A part of the steps: `0.1:0.8`.
struct StepRange: ExpressibleByArgument {
  let start: Double
  let end: Double

  init?(argument: String) {
    let numbers = argument.split(separator: ":", omittingEmptySubsequences: false).map { Double($0) }
    guard numbers.count == 2, let start = numbers[0], let end = numbers[1], start >= 0, end >= start, end <= 1 else { return nil }
    (self.start, self.end) = (start, end)
  }
}

/// ControlNets and T2I-Adapters. The n-th picture and range belong to the n-th network.
struct ControlOptions: ParsableArguments {
  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      """
      A ControlNet: its folder or a .safetensors file, and how much it counts; without a number, 1. It can be given several times, each with its picture.
      """, valueName: "path=weight"))
  var controlnet: [ScaledFile] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: "The picture that steers a ControlNet, such as edges: PNG, JPEG or WebP. For clips also a folder with one for each frame.")
  var controlImage: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("The part of the steps that a ControlNet steers, such as 0.1:0.8. Without it, all.", valueName: "start:end"))
  var controlRange: [StepRange] = []

  @Flag(help: "ControlNets guess from their pictures what the prompt does not say: only what follows the prompt is steered.")
  var guessMode = false

  @Option(
    name: .customLong("t2i-adapter"), parsing: .unconditionalSingleValue,
    help: ArgumentHelp("A T2I-Adapter, as --controlnet.", valueName: "path=weight"))
  var adapters: [ScaledFile] = []

  @Option(parsing: .unconditionalSingleValue, help: "The picture that steers a T2I-Adapter: PNG, JPEG or WebP.")
  var adapterImage: [String] = []

  @Option(
    parsing: .unconditionalSingleValue,
    help: ArgumentHelp("The part of the steps that a T2I-Adapter steers, as --control-range.", valueName: "start:end"))
  var adapterRange: [StepRange] = []

  /// The pictures' files.
  var images: [String] { controlImage + adapterImage }
  var isEmpty: Bool { controlnet.isEmpty && adapters.isEmpty }

  func validate() throws {
    for (networks, images, ranges, option, kind) in [
      (controlnet.count, controlImage.count, controlRange.count, "control", "--controlnet"),
      (adapters.count, adapterImage.count, adapterRange.count, "adapter", "--t2i-adapter"),
    ] {
      guard networks == images else {
        throw ValidationError("\(kind) is given \(networks) times and --\(option)-image \(images) times; give one picture for each.")
      }
      guard [0, networks].contains(ranges) else {
        throw ValidationError("\(kind) is given \(networks) times and --\(option)-range \(ranges) times; give one for each, or none.")
      }
    }
    guard !guessMode || !controlnet.isEmpty else { throw ValidationError("--guess-mode is for a ControlNet; name one with --controlnet.") }
  }

  /// The networks' files.
  var files: [URL] { (controlnet + adapters).map { URL(filePath: $0.path) } }

  /// Loads the networks. What their files have too much is told.
  func load(as weights: WeightForm?, plan: MemoryPlan?, in context: ExecutionContext) async throws -> [Control] {
    try await context.run { [self] context in
      func controls<Network: ControlModel & ModelComponent>(
        _ type: Network.Type, _ files: [ScaledFile], _ images: [String], _ ranges: [StepRange]
      ) throws -> [Control] {
        try files.enumerated().map { index, file in
          let (network, report) = try Network.loadReported(from: URL(filePath: file.path), weights: weights, plan: plan, in: context)
          if !report.unused.isEmpty { Progress.warn("\(LoadWarning.unusedTensors(component: file.path, names: report.unused))") }
          let seen = try pictures(images[index]).map { network.pictureChannels == 1 ? $0.mask() : $0.tensor() }
          return Control(
            network, picture: Tensor.concatenated(seen, axis: 0), weight: file.scale,
            start: ranges.isEmpty ? 0 : ranges[index].start, end: ranges.isEmpty ? 1 : ranges[index].end,
            isGuessing: guessMode && network.hasGuessMode)
        }
      }
      return try controls(ControlNetModel.self, controlnet, controlImage, controlRange)
        + controls(T2IAdapter.self, adapters, adapterImage, adapterRange)
    }
  }

  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] {
    func settings(_ kind: String, _ files: [ScaledFile], _ ranges: [StepRange]) -> [GenerationParameters.Setting] {
      files.enumerated().map { index, file in
        .init(kind, "\(file.name) \(file.scale)" + (ranges.isEmpty ? "" : " \(ranges[index].start):\(ranges[index].end)"))
      }
    }
    return settings(guessMode ? "ControlNet (guess mode)" : "ControlNet", controlnet, controlRange)
      + settings("T2I-Adapter", adapters, adapterRange)
  }
}

struct Canny: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "canny", abstract: "Draws the edges of a picture, for ControlNets and adapters that were made for them.",
    discussion: """
      Example: ldm canny --image photo.jpg --output edges.png
      """)

  @Option(parsing: .unconditional, help: "The picture: PNG, JPEG or WebP.") var image: String
  @Option(name: [.customShort("o"), .long], parsing: .unconditional, help: "Where the edges go: a .png, .jpg or .webp file.") var output:
    String
  @Option(parsing: .unconditional, help: "An edge goes on where the gradient is above this.") var low = 100.0
  @Option(parsing: .unconditional, help: "An edge begins where the gradient is above this.") var high = 200.0

  func run() throws {
    let url = URL(filePath: output)
    try checkWritable(url)
    try picture(image).cannyEdges(low: low, high: high).write(to: url)
  }
}
