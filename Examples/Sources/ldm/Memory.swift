import ArgumentParser
import Foundation
import LatentDiffusion

/// An amount of memory: a whole or decimal number of MB, GB, MiB or GiB.
struct MemorySize: ExpressibleByArgument {
  let bytes: Int

  init?(argument: String) {
    let units = ["GIB": 0x1p30, "MIB": 0x1p20, "GB": 1e9, "MB": 1e6]
    let text = argument.uppercased()
    guard let unit = units.first(where: { text.hasSuffix($0.key) }) else { return nil }
    let number = text.dropLast(unit.key.count)
    guard !number.isEmpty, number.allSatisfy({ $0.isASCII && ($0.isNumber || $0 == ".") }), let value = Double(number) else { return nil }
    // Above 2^53 a number of bytes is not exact, and no machine has as many.
    guard (1...0x1p53).contains(value * unit.value) else { return nil }
    bytes = Int(value * unit.value)
  }

  static let help = "a number above 0 with MB, GB, MiB or GiB, such as 1600MB"
}

struct MemoryOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      The memory that the process may take: \(MemorySize.help). Weights that do not fit are packed anew in every step, and pictures are decoded in \
      smaller tiles. Without it, as much as is fastest.
      """,
    transform: {
      guard let size = MemorySize(argument: $0) else { throw ValidationError("--memory-limit must be \(MemorySize.help).") }
      return size.bytes
    })
  var memoryLimit: Int?

  /// - Parameter extent: makes the extent of the work from the model's usual size. If it returns nil, the model's own extent is used.
  func plan(_ model: ModelOptions, adapters: [AdapterUse] = [], _ extent: (PixelSize?) -> GenerationExtent?) throws -> MemoryPlan? {
    guard let memoryLimit else { return nil }
    let (files, threads) = (try model.files, model.threads ?? ProcessInfo.processInfo.activeProcessorCount)
    let usual = try MemoryPlan.usualSize(of: files.base, replacing: files.parts).size
    return try MemoryPlan(
      for: files.base, replacing: files.parts, extent(usual), limit: memoryLimit, weights: model.weights, adapters: adapters,
      threads: threads)
  }
}

extension MemoryPlan {
  /// The predicted time for this many steps, in words.
  func time(steps: Int, in context: ExecutionContext) async throws -> String {
    let seconds = try await context.run { try predictedSeconds(steps: steps, in: $0) }
    return "about \(String(format: seconds < 10 ? "%.1f" : "%.0f", seconds)) s for \(steps) steps on this machine"
  }
}

struct TileOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      Tiles in which pictures are encoded and decoded: the side in pixels, off for none, auto for tiles of 512 from 1024×1024 pixels up. They \
      overlap by a quarter and are blended.
      """)
  var tile = Tile.auto

  enum Tile: ExpressibleByArgument {
    case auto
    case off
    case side(Int)

    init?(argument: String) {
      switch argument {
      case "auto": self = .auto
      case "off": self = .off
      default:
        guard let side = Int(argument), (1...1 << 20).contains(side) else { return nil }
        self = .side(side)
      }
    }

    var defaultValueDescription: String { "auto" }
  }

  /// Nil if the user asked for nothing.
  func tiling(scale: Int) throws -> AutoencoderTiling? {
    switch tile {
    case .auto: return nil
    case .off: return .off
    case .side(let side):
      guard side.isMultiple(of: scale) else { throw Failure("--tile \(side) does not fit this model; give a multiple of \(scale).") }
      return .tiles(AutoencoderTiles(latentSide: side / scale))
    }
  }

  func apply(to model: inout StableDiffusion) throws {
    let autoencoder = model.pipeline.autoencoder
    guard let tiling = try tiling(scale: autoencoder.spatialScale) else { return }
    // An autoencoder that is tiled already gets the new tiles instead of its own.
    model.pipeline.autoencoder = TiledAutoencoder((autoencoder as? TiledAutoencoder)?.base ?? autoencoder, tiling: tiling)
  }
}
