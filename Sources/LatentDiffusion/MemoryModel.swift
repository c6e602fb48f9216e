import Autoencoder
import Foundation
import Pipeline
import Tensor
import TextEncoder
import UNet
import LatentDiffusionWeights

/// What a plan can choose.
struct MemoryChoice: Sendable {
  var text: WeightResidency = .packed
  var unet: WeightResidency = .packed
  var autoencoder: WeightResidency = .packed
  var tiling: AutoencoderTiling = .automatic
  /// Whether components without a form that was asked for have their usual one, which may be wider than the file's.
  var widensSmall = true

  /// Without a limit.
  static let usual = MemoryChoice()
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
    return Double(steps) * step.operations / speed.unet + text.operations / speed.unet + pictures.operations / speed.autoencoder
      + packed / speed.packing
  }
}

/// A model's networks, made of the extents of its tensors alone: all that its memory follows from, without its weights.
struct MemoryModel: Sendable {
  private let usual: Components, stored: Components
  private let threads: Int
  /// Pixels a side for each latent a side.
  let scale: Int

  /// A model's components in one set of forms.
  private struct Components: Sendable {
    let text: Component, unet: Component, autoencoder: Component

    let textNetwork: CLIPTextModel
    let unetNetwork: UNet2DConditionModel
    let autoencoderNetwork: AutoencoderKL

    /// - Parameter form: of a component by its name.
    init(_ files: ModelFiles, form: (String) throws -> WeightForm?) throws {
      func component<Network>(_ name: String, _ make: (Data, WeightScope) throws -> Network) throws -> (Component, Network) {
        guard let json = try files.configuration(of: name) else {
          throw ConfigurationError.malformed(component: name, reason: "there is no config.json")
        }
        let form = try form(name)
        let extents = try files.extents(of: name, as: form)
        let network = try LoadReport.load(from: ExtentSource(extents), in: ExecutionContext()) { try make(json, $0) }.component
        return (Component(extents, form: form), network)
      }
      (text, textNetwork) = try component("text_encoder") { try CLIPTextModel(CLIPTextShape(json: $0), weights: $1) }
      (unet, unetNetwork) = try component("unet") { try UNet2DConditionModel(UNet2DShape(json: $0), weights: $1) }
      var made: (Component, AutoencoderKL) = try component("vae") { try AutoencoderKL(AutoencoderKLShape(json: $0), weights: $1) }
      // Tiles are followed one by one.
      made.1.tiling = .off
      (autoencoder, autoencoderNetwork) = made
    }

    var forms: [WeightForm?] { [text.form, unet.form, autoencoder.form] }
  }

  private func components(_ choice: MemoryChoice) -> Components { choice.widensSmall ? usual : stored }

  /// The form that most of the U-Net's weights have.
  func unetElementType(_ choice: MemoryChoice) -> NumberFormat { components(choice).unet.elementType }

  /// The form in which `text_encoder`, `unet` or `vae` is held; nil: as the file has it.
  func form(of component: String, _ choice: MemoryChoice) -> WeightForm? {
    let components = components(choice)
    switch component {
    case "text_encoder": return components.text.form
    case "unet": return components.unet.form
    default: return components.autoencoder.form
    }
  }

  /// A component's tensors.
  private struct Component: Sendable {
    let tensors: [TensorExtent]
    /// Nil: as the file has them.
    let form: WeightForm?
    /// That most of the weights have.
    let elementType: NumberFormat
    /// Converted weights are no pages of a file.
    let canBeStreamed: Bool

    init(_ tensors: [TensorExtent], form: WeightForm?) {
      (self.tensors, self.form) = (tensors, form)
      let matrices = tensors.filter(\.isMatrix)
      canBeStreamed = matrices.allSatisfy { $0.elementType == $0.storedType }
      var bytes: [NumberFormat: Int] = [:]
      for matrix in matrices { bytes[matrix.elementType, default: 0] += matrix.heldBytes }
      elementType = bytes.max { ($0.value, $1.key.name) < ($1.value, $0.key.name) }?.key ?? .float32
    }

    /// Bytes that stay in memory.
    func kept(_ residency: WeightResidency, where isUsed: (String) -> Bool = { _ in true }) -> Int {
      tensors.reduce(0) { sum, tensor in
        let isHeld = !tensor.isMatrix || isUsed(tensor.name) && residency.isPacked(tensor.heldBytes)
        return isHeld ? sum + tensor.heldBytes : sum
      }
    }

    /// Matrices that do not stay in memory.
    func streamed(_ residency: WeightResidency) -> Int {
      guard case .streamed = residency else { return 0 }
      return tensors.count { $0.isMatrix && !residency.isPacked($0.heldBytes) }
    }

    /// Sizes above which weights can be streamed, each of which makes a difference, the largest first.
    var thresholds: [Int] {
      canBeStreamed ? Array(Set(tensors.filter(\.isMatrix).map(\.heldBytes)).sorted(by: >).dropFirst()) + [0] : []
    }
  }

  init(_ files: ModelFiles, weights: WeightForm?, threads: Int) throws {
    try files.checkFamily()
    usual = try Components(files) { try weights ?? files.usualForm(of: $0) }
    stored = try Components(files) { _ in weights }
    scale = usual.autoencoderNetwork.spatialScale
    self.threads = threads
  }

  /// Whether decoding a picture of the usual size takes no more than a guided pass of the U-Net.
  static func decodesQuickly(unet: UNet2DConditionModel, autoencoder: AutoencoderKL, tokens: Int) -> Bool {
    guard let sides = unet.sampleSides else { return false }
    let (pass, decoding) = (WorkCounter(), WorkCounter())
    do {
      try unet.follow(pass, threads: 1, rows: 2, height: sides.height, width: sides.width, tokens: tokens)
      try autoencoder.followDecoder(decoding, threads: 1, height: sides.height, width: sides.width)
    } catch { return false }
    return decoding.operations <= pass.operations
  }

  /// One guided picture of the size that the model was trained on.
  var usualExtent: GenerationExtent? {
    usual.unetNetwork.sampleSides.map { GenerationExtent(size: PixelSize(width: $0.width * scale, height: $0.height * scale)) }
  }

  /// - Throws: `GenerationError` for what cannot be generated with any memory.
  func check(_ extent: GenerationExtent) throws(GenerationError) {
    let (size, images) = (extent.size, extent.images)
    guard size.width > 0, size.height > 0, size.width.isMultiple(of: scale), size.height.isMultiple(of: scale) else {
      throw .indivisibleSize(width: size.width, height: size.height, multiple: scale)
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

  func choices(_ extent: GenerationExtent) -> [MemoryChoice] {
    let side = max(extent.size.width, extent.size.height)
    let tilings: [AutoencoderTiling] =
      [.automatic]
      + Self.tileSides.filter { $0 < side && $0.isMultiple(of: scale) && $0 >= 4 * scale }.map {
        .tiles(AutoencoderTiles(latentSide: $0 / scale))
      }
    func residencies(_ component: Component, _ thresholds: [Int]) -> [WeightResidency] {
      [.packed] + (component.canBeStreamed ? thresholds.map { .streamed(above: $0) } : [])
    }
    func choices(_ components: Components, widensSmall: Bool) -> [MemoryChoice] {
      tilings.flatMap { tiling in
        residencies(components.autoencoder, [0]).flatMap { autoencoder in
          residencies(components.text, [0]).flatMap { text in
            residencies(components.unet, components.unet.thresholds).map {
              MemoryChoice(text: text, unet: $0, autoencoder: autoencoder, tiling: tiling, widensSmall: widensSmall)
            }
          }
        }
      }
    }
    // Of those that are as fast the first is taken.
    return (usual.forms != stored.forms ? choices(usual, widensSmall: true) : []) + choices(stored, widensSmall: false)
  }

  /// What a process takes without a model: the program and its libraries, what those make of their own, threads.
  private static let programBytes = 38_000_000
  /// What the tokenizer takes for each token that it knows.
  private static let bytesPerToken = 400
  /// What stays of the file beside a matrix that is streamed: the system maps pages around those that are asked for.
  private static let bytesPerStreamedMatrix = 1 << 16
  /// What pages and gaps add to weights that are kept, to buffers, and to those of the autoencoder, whose results are large and take turns in
  /// memory; measured.
  private static let waste = (kept: 1.02, buffers: 1.04, pictures: 1.21)

  /// What passes take, each of which belongs to several choices: followed once for each.
  final class Passes {
    fileprivate struct Key: Hashable {
      var name: String
      var widensSmall: Bool
      var streamsAbove: Int?
      var height = 0
      var width = 0
    }
    fileprivate var known: [Key: WorkCounter] = [:]

    init() {}
  }

  private func followed(
    _ passes: Passes, _ name: String, _ choice: MemoryChoice, _ residency: WeightResidency, height: Int = 0, width: Int = 0,
    _ follow: (WorkCounter) throws -> Void
  ) throws -> WorkCounter {
    var key = Passes.Key(name: name, widensSmall: choice.widensSmall, height: height, width: width)
    if case .streamed(let above) = residency { key.streamsAbove = above }
    if let known = passes.known[key] { return known }
    let counter = WorkCounter()
    try follow(counter)
    passes.known[key] = counter
    return counter
  }

  /// - Parameter passes: of the same extent.
  func cost(of choice: MemoryChoice, _ extent: GenerationExtent, passes: Passes = Passes()) throws -> MemoryCost {
    let (height, width) = (extent.size.height / scale, extent.size.width / scale)
    let components = components(choice)
    let (text, unet, autoencoder) = (components.text, components.unet, components.autoencoder)
    let tokens = components.textNetwork.shape.positions
    let textWork = try followed(passes, "text", choice, choice.text) {
      try components.textNetwork.follow($0, threads: threads, residency: choice.text, texts: extent.images)
    }
    let unetWork = try followed(passes, "unet", choice, choice.unet) {
      try components.unetNetwork.follow(
        $0, threads: threads, residency: choice.unet, rows: extent.images * extent.rowsPerImage, height: height, width: width,
        tokens: tokens)
    }
    let tiles = choice.tiling.tiles(height: height, width: width, scale: scale)
    let tile = (height: min(height, tiles?.latentSide ?? height), width: min(width, tiles?.latentSide ?? width))
    let decoding = try followed(passes, "decoder", choice, choice.autoencoder, height: tile.height, width: tile.width) {
      try components.autoencoderNetwork.followDecoder(
        $0, threads: threads, residency: choice.autoencoder, height: tile.height, width: tile.width)
    }
    let encoding = try followed(passes, "encoder", choice, choice.autoencoder, height: tile.height, width: tile.width) {
      guard extent.encodesPicture else { return }
      try components.autoencoderNetwork.followEncoder(
        $0, threads: threads, residency: choice.autoencoder, height: tile.height * scale, width: tile.width * scale)
    }
    let kept =
      text.kept(choice.text) + unet.kept(choice.unet)
      + autoencoder.kept(choice.autoencoder) { extent.encodesPicture || !$0.hasPrefix("encoder.") }
    // The pictures that are done, and copies of the one that is being made.
    let pictures = (extent.images + 3) * extent.size.width * extent.size.height * 3 * 4
    let latents = Self.waste.buffers * Double(max(textWork.peakBytes, unetWork.peakBytes))
    let passing = max(latents, Self.waste.pictures * Double(max(decoding.peakBytes, encoding.peakBytes)) + Double(pictures))
    let area = Double(height * width) / Double(tile.height * tile.width) * (tiles?.areaFactor(height: height, width: width) ?? 1)
    let images = Double(extent.images) * area
    let streamed = text.streamed(choice.text) + unet.streamed(choice.unet) + autoencoder.streamed(choice.autoencoder)
    let program = Self.programBytes + Self.bytesPerToken * components.textNetwork.shape.vocabulary + Self.bytesPerStreamedMatrix * streamed
    return MemoryCost(
      peakBytes: program + Int(Self.waste.kept * Double(kept) + passing), keptBytes: kept,
      step: .init(operations: unetWork.operations, packedBytes: unetWork.packedBytes),
      // The prompt and the negative prompt.
      text: .init(operations: 2 * textWork.operations, packedBytes: 2 * textWork.packedBytes),
      pictures: .init(
        operations: images * (decoding.operations + encoding.operations),
        packedBytes: images * (decoding.packedBytes + encoding.packedBytes)))
  }
}

/// Passes of the networks that are followed by a counting engine, in place of inputs with elements.
extension CLIPTextModel {
  fileprivate func follow(_ counter: WorkCounter, threads: Int, residency: WeightResidency, texts: Int) throws {
    let ids = Array(repeating: Array(repeating: 0, count: shape.positions), count: texts)
    _ = try self(ids, in: CountingEngine(counter, threads: threads, residency: residency).context)
  }
}

extension UNet2DConditionModel {
  /// A pass after the first, which leaves what every pass needs of the text.
  fileprivate func follow(
    _ counter: WorkCounter, threads: Int, residency: WeightResidency = .packed, rows: Int, height: Int, width: Int, tokens: Int
  ) throws {
    let engine = CountingEngine(counter, threads: threads, residency: residency)
    let context = engine.context
    let conditioning = Conditioning(hiddenStates: engine.input([rows, tokens, shape.contextChannels]))
    var memory = PassMemory()
    for _ in 0..<2 {
      counter.beginPass()
      _ = try predict(
        engine.input([rows, height, width, inputChannels]), timestep: 0, conditioning: conditioning, memory: &memory, in: context)
    }
  }
}

extension AutoencoderKL {
  fileprivate func followDecoder(
    _ counter: WorkCounter, threads: Int, residency: WeightResidency = .packed, height: Int, width: Int
  ) throws {
    let engine = CountingEngine(counter, threads: threads, residency: residency)
    _ = try decode(engine.input([1, height, width, latentChannels]), in: engine.context)
  }

  fileprivate func followEncoder(_ counter: WorkCounter, threads: Int, residency: WeightResidency, height: Int, width: Int) throws {
    let engine = CountingEngine(counter, threads: threads, residency: residency)
    _ = try encode(engine.input([1, height, width, 3]), in: engine.context)
  }
}
