import Autoencoder
import Foundation
import LatentDiffusionComponents
import Pipeline
import Tensor
import LatentDiffusionWeights

/// What a plan can choose.
struct MemoryChoice: Sendable {
  /// Where the weights of each role's components are between uses.
  var conditioner: WeightResidency = .packed
  var predictor: WeightResidency = .packed
  var autoencoder: WeightResidency = .packed
  var tiling: AutoencoderTiling = .automatic
  /// Whether components without a form that was asked for have their usual one, which may be wider than the file's.
  var widensSmall = true

  /// Without a limit.
  static let usual = MemoryChoice()

  func residency(_ role: ModelPart.Role) -> WeightResidency {
    switch role {
    case .conditioner: conditioner
    case .predictor: predictor
    case .autoencoder: autoencoder
    case .accessory: .packed
    }
  }
}

/// What a choice takes.
struct MemoryCost: Sendable {
  let peakBytes: Int
  let keptBytes: Int
  /// What one step, the text and all decoding and encoding compute and pack.
  fileprivate(set) var step = Work()
  fileprivate(set) var text = Work()
  fileprivate(set) var pictures = Work()

  struct Work {
    var operations = 0.0
    var packedBytes = 0.0
  }

  /// What choices are compared by.
  var usualSeconds: Double { seconds(steps: 20, on: .reference) }

  func seconds(steps: Int, on speed: MachineSpeed) -> Double {
    let packed = Double(steps) * step.packedBytes + text.packedBytes + pictures.packedBytes
    return Double(steps) * step.operations / speed.passes + text.operations / speed.passes + pictures.operations / speed.pictures
      + packed / speed.packing
  }
}

/// A model's networks and what is beside them, made of the extents of their tensors alone: all that its memory follows from, without its weights.
struct MemoryModel: Sendable {
  private let usual: MemoryParts, stored: MemoryParts
  private let threads: Int
  /// Pixels a side for each latent a side.
  let scale: Int

  /// - Parameter weights: the form that was asked for.
  init(
    _ files: ModelFiles, of family: any ModelFamily, beside company: ModelCompany = ModelCompany(), weights: WeightForm?,
    adapters: [AdapterUse] = [], threads: Int, registry: ModelRegistry
  ) throws {
    let match = adapters.isEmpty ? .none : try AdapterMatch(adapters, targets: family.adapterTargets(files))
    func parts(_ form: (ModelFiles, String, WeightForm?) throws -> WeightForm?) throws -> MemoryParts {
      try MemoryParts(files, of: family, beside: company, weights: weights, match, registry: registry, form: form)
    }
    usual = try parts { try $2 ?? $0.usualForm(of: $1) }
    stored = usual.isWidened(from: weights) ? try parts { $2 } : usual
    scale = usual.assembly.autoencoder.spatialScale
    self.threads = threads
  }

  private func parts(_ choice: MemoryChoice) -> MemoryParts { choice.widensSmall ? usual : stored }

  private func part(_ name: String, _ choice: MemoryChoice) -> MemoryParts.Part? { parts(choice).parts.first { $0.name == name } }

  /// The form that most of the predictor's weights have.
  func predictorElementType(_ choice: MemoryChoice) -> NumberFormat { parts(choice).parts(.predictor).first?.elementType ?? .float32 }

  /// The form in which a component is held; nil: as the file has it.
  func form(of component: String, _ choice: MemoryChoice) -> WeightForm? { part(component, choice)?.form }

  /// Where the matrices of a component are between uses.
  func residency(of component: String, _ choice: MemoryChoice) -> WeightResidency {
    part(component, choice).map { choice.residency($0.role) } ?? .packed
  }

  func streamedParameters(_ choice: MemoryChoice) -> [String: Set<String>] {
    Dictionary(parts(choice).parts.map { ($0.name, $0.streamedParameters(choice.residency($0.role))) }) { $1 }
  }

  /// Whether a network is among those that were planned for.
  func isBeside(_ url: URL) -> Bool { usual.parts.contains { $0.name == url.networkName } }

  /// The names of what steers the predictor.
  var controls: [String] { usual.controls.map(\.name) }

  /// One guided picture of the size that the model was trained on.
  var usualExtent: GenerationExtent? {
    usual.assembly.predictor.sampleSides.map { GenerationExtent(size: PixelSize(width: $0.width * scale, height: $0.height * scale)) }
  }

  /// - Throws: `GenerationError` for what cannot be generated with any memory.
  func check(_ extent: GenerationExtent) throws(GenerationError) {
    let (size, images) = (extent.size, extent.images), multiple = scale * usual.assembly.predictor.sideMultiple
    guard size.width > 0, size.height > 0, size.width.isMultiple(of: multiple), size.height.isMultiple(of: multiple) else {
      throw .indivisibleSize(width: size.width, height: size.height, multiple: multiple)
    }
    guard images > 0, (1...Self.mostRows).contains(extent.rowsPerImage),
      Shape([images, size.width, size.height]).count <= GenerationRequest.maximumPixels
    else {
      throw .tooLarge(width: size.width, height: size.height, images: images)
    }
  }

  /// Rows of a pass for each picture that anybody could want.
  private static let mostRows = 1000
  /// Sides of tiles, in pixels, that a plan tries after the automatic ones.
  private static let tileSides = [512, 384, 320, 256, 192, 128, 96, 64]

  /// Choices in series: in each of them more and more of the predictor is streamed.
  private func choices(_ extent: GenerationExtent) -> [[MemoryChoice]] {
    let side = max(extent.size.width, extent.size.height)
    let tilings: [AutoencoderTiling] =
      [.automatic]
      + Self.tileSides.filter { $0 < side && $0.isMultiple(of: scale) && $0 >= 4 * scale }.map {
        .tiles(AutoencoderTiles(latentSide: $0 / scale))
      }
    // Of the predictor each size of matrices makes a difference; of the others all are streamed, or none.
    func residencies(_ parts: [MemoryParts.Part], isFine: Bool = false) -> [WeightResidency] {
      guard parts.allSatisfy(\.canBeStreamed) else { return [.packed] }
      let least = Self.bytesPerStreamedMatrix
      let thresholds = isFine ? Set(parts.flatMap { $0.thresholds(from: least) }).sorted(by: >) : [least]
      return [.packed] + thresholds.map { .streamed(above: $0) }
    }
    func choices(_ parts: MemoryParts, widensSmall: Bool) -> [[MemoryChoice]] {
      let predictor = residencies(parts.parts(.predictor), isFine: true)
      return tilings.flatMap { tiling in
        residencies(parts.parts(.autoencoder)).flatMap { autoencoder in
          residencies(parts.parts(.conditioner)).map { conditioner in
            predictor.map {
              MemoryChoice(
                conditioner: conditioner, predictor: $0, autoencoder: autoencoder, tiling: tiling, widensSmall: widensSmall)
            }
          }
        }
      }
    }
    // Of those that are as fast the first is taken.
    let differ = usual.parts.map(\.form) != stored.parts.map(\.form)
    return (differ ? choices(usual, widensSmall: true) : []) + choices(stored, widensSmall: false)
  }

  /// The quickest choice that keeps within a limit; nil where none does.
  ///
  /// Along a series memory falls and time grows, so its first choice that fits is found by halving, and a series is left where nothing in it can be quicker
  /// than what was found before.
  func quickest(within limit: Int, _ extent: GenerationExtent, passes: MemoryPasses) throws -> (choice: MemoryChoice, cost: MemoryCost)? {
    var best: (choice: MemoryChoice, cost: MemoryCost)?, guess = 0
    for series in choices(extent) {
      // The first that fits is among `low...high`; at the end of the series there may be none.
      var (low, high, probe) = (0, series.count, guess)
      var found: MemoryCost?
      while low < high {
        let cost = try cost(of: series[min(probe, high - 1)], extent, passes: passes)
        if cost.peakBytes <= limit {
          (high, found) = (min(probe, high - 1), cost)
        } else {
          low = min(probe, high - 1) + 1
          if let best, best.cost.usualSeconds <= cost.usualSeconds { break }
        }
        probe = (low + high) / 2
      }
      guard low == high, let found, best.map({ found.usualSeconds < $0.cost.usualSeconds }) ?? true else { continue }
      (best, guess) = ((series[high], found), high)
    }
    return best
  }

  /// The least that any choice takes.
  func smallestPeak(_ extent: GenerationExtent, passes: MemoryPasses) throws -> Int {
    try choices(extent).compactMap(\.last).map { try cost(of: $0, extent, passes: passes).peakBytes }.min() ?? 0
  }

  /// What a process takes without a model: the program and its libraries, what those make of their own, threads.
  static let programBytes = 44_000_000
  /// What stays of the file beside a matrix that is streamed: the system maps pages around those that are asked for.
  private static let bytesPerStreamedMatrix = 1 << 16
  /// What pages and gaps add to weights that are kept, to buffers, and to those of the autoencoder, whose results are large and take turns in
  /// memory; measured.
  static let waste = (kept: 1.02, buffers: 1.04, pictures: 1.1)

  private func followed(
    _ passes: MemoryPasses, _ role: ModelPart.Role, _ choice: MemoryChoice, encodes: Bool = false, height: Int = 0, width: Int = 0,
    _ follow: (CountingEngine) throws -> Conditioning?
  ) throws -> MemoryPasses.Pass {
    try passes.pass(role, choice, encodes: encodes, height: height, width: width) {
      let engine = CountingEngine(WorkCounter(), threads: threads, residency: choice.residency(role))
      return MemoryPasses.Pass(work: engine.counter, conditioning: try follow(engine))
    }
  }

  /// Of each clip; 1 for pictures.
  private func frames(_ extent: GenerationExtent) -> Int {
    usual.assembly.predictor.clip.map { extent.frames ?? $0.usual } ?? 1
  }

  /// - Parameter passes: of the same extent.
  func cost(of choice: MemoryChoice, _ extent: GenerationExtent, passes: MemoryPasses = MemoryPasses()) throws -> MemoryCost {
    let (height, width) = (extent.size.height / scale, extent.size.width / scale)
    let parts = parts(choice), assembly = parts.assembly
    let text = try followed(passes, .conditioner, choice) {
      try assembly.followConditioner(extent.images, size: extent.size, pictures: parts.pictures, $0)
    }
    let pass = try followed(passes, .predictor, choice) { engine in
      func said(_ rows: Int) -> Conditioning? {
        text.conditioning?.extended(to: extent.images * rows, length: extent.contextLength, by: engine)
      }
      try assembly.followPass(
        said(extent.rowsPerImage), resting: extent.restingRows > 0 ? said(extent.restingRows) : nil, extent, steeredBy: parts.controls,
        height: height, width: width, engine)
      return nil
    }.work
    let tiles = choice.tiling.tiles(height: height, width: width, scale: scale)
    let tile = (height: min(height, tiles?.latentSide ?? height), width: min(width, tiles?.latentSide ?? width))
    let frames = frames(extent)
    let together = assembly.autoencoder.decodesClips ? max(1, min(frames, extent.framesDecodedTogether ?? frames)) : 1
    let decoding = try followed(passes, .autoencoder, choice, height: tile.height, width: tile.width) {
      try assembly.followDecoder(
        height: tile.height, width: tile.width, frames: together, keepsPictures: extent.encodesPicture, $0)
      return nil
    }.work
    let encoding = try followed(passes, .autoencoder, choice, encodes: true, height: tile.height, width: tile.width) {
      if extent.encodesPicture { try assembly.followEncoder(height: tile.height * scale, width: tile.width * scale, $0) }
      return nil
    }.work
    let weights = passes.weights(of: parts, choice, usesAll: extent.encodesPicture)
    // The pictures that are done, and copies of the one that is being made.
    let count = extent.images * frames
    let pictures = (count + 3) * extent.size.width * extent.size.height * 3 * 4
    let rows = extent.images * (extent.rowsPerImage + extent.restingRows + extent.waitingTexts)
    let said = text.conditioning?.extended(to: rows, length: extent.contextLength, by: CountingEngine(WorkCounter(), threads: 1)).bytes ?? 0
    let latents = Self.waste.buffers * Double(max(text.work.peakBytes, pass.peakBytes) + said)
    let passing = max(latents, Self.waste.pictures * Double(max(decoding.peakBytes, encoding.peakBytes)) + Double(pictures))
    let area = Double(height * width) / Double(tile.height * tile.width) * (tiles?.areaFactor(height: height, width: width) ?? 1)
    let decodings = Double(extent.images * ((frames + together - 1) / together)) * area
    // Of a clip that starts from a picture, that one alone is encoded.
    let encodings = Double(assembly.autoencoder.decodesClips ? extent.images : count) * area
    let program = Self.programBytes + assembly.otherBytes + Self.bytesPerStreamedMatrix * weights.streamed
    return MemoryCost(
      peakBytes: program + Int(Self.waste.kept * Double(weights.kept) + passing), keptBytes: weights.kept,
      step: .init(operations: pass.operations, packedBytes: pass.packedBytes),
      // The prompt and the negative prompt.
      text: .init(operations: 2 * text.work.operations, packedBytes: 2 * text.work.packedBytes),
      pictures: .init(
        operations: decodings * decoding.operations + encodings * encoding.operations,
        packedBytes: decodings * decoding.packedBytes + encodings * encoding.packedBytes))
  }
}
