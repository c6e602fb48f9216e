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

/// A model's networks, made of the extents of its tensors alone: all that its memory follows from, without its weights.
struct MemoryModel: Sendable {
  private let usual: Components, stored: Components
  private let threads: Int
  /// Pixels a side for each latent a side.
  let scale: Int

  /// A model's components in one set of forms.
  private struct Components: Sendable {
    let parts: [Component]
    let assembly: ModelAssembly

    /// - Parameter form: of a component by its name.
    init(_ files: ModelFiles, of family: any ModelFamily, _ match: AdapterMatch, form: (String) throws -> WeightForm?) throws {
      var parts: [Component] = [], made: [String: any Sendable] = [:]
      for part in family.parts(of: files) where part.role != .accessory {
        let form = try form(part.name)
        let extents = try files.extents(of: part.name, as: form)
        let (component, report) = try files.make(part.name, from: ExtentSource(extents), in: ExecutionContext())
        made[part.name] = component
        parts.append(Component(part, extents, form: form, match, onceUsed: report))
      }
      self.parts = parts
      assembly = try family.assembled(ModelParts(made, areExtents: true))
    }

    func parts(_ role: ModelPart.Role) -> [Component] { parts.filter { $0.part.role == role } }
  }

  private func components(_ choice: MemoryChoice) -> Components { choice.widensSmall ? usual : stored }

  /// The form that most of the predictor's weights have.
  func predictorElementType(_ choice: MemoryChoice) -> NumberFormat {
    components(choice).parts(.predictor).first?.elementType ?? .float32
  }

  /// The form in which a component is held; nil: as the file has it.
  func form(of component: String, _ choice: MemoryChoice) -> WeightForm? { part(component, choice)?.form }

  /// Where the matrices of a component are between uses.
  func residency(of component: String, _ choice: MemoryChoice) -> WeightResidency {
    part(component, choice).map { choice.residency($0.part.role) } ?? .packed
  }

  func streamedParameters(_ choice: MemoryChoice) -> [String: Set<String>] {
    let parts = components(choice).parts
    return Dictionary(parts.map { ($0.part.name, $0.streamedParameters(choice.residency($0.part.role))) }) { $1 }
  }

  private func part(_ name: String, _ choice: MemoryChoice) -> Component? { components(choice).parts.first { $0.part.name == name } }

  /// A component's tensors.
  private struct Component: Sendable {
    let part: ModelPart
    let tensors: [TensorExtent]
    /// Nil: as the file has them.
    let form: WeightForm?
    /// That most of the weights have.
    let elementType: NumberFormat
    /// Converted weights are no pages of a file.
    let canBeStreamed: Bool

    /// Matrices that not every generation needs.
    private let packedOnceUsed: Set<String>
    /// Bytes that adapters take beside a matrix that is streamed, or in its place.
    private let adapterBytes: [String: Int]

    init(_ part: ModelPart, _ tensors: [TensorExtent], form: WeightForm?, _ match: AdapterMatch, onceUsed report: LoadReport) {
      (self.part, self.tensors, self.form) = (part, tensors, form)
      let beside = tensors.filter(\.isMatrix).compactMap { tensor in
        match.bytes(of: tensor.name, in: part.name, shape: tensor.shape, copy: tensor.heldBytes).map { (tensor.name, $0) }
      }
      adapterBytes = Dictionary(beside) { $1 }
      packedOnceUsed = Set(report.parameters.filter { $0.residency == .packedOnceUsed }.map(\.name))
      let matrices = tensors.filter(\.isMatrix)
      canBeStreamed = form == nil || matrices.allSatisfy(\.isStreamable)
      var bytes: [NumberFormat: Int] = [:]
      for matrix in matrices { bytes[matrix.elementType, default: 0] += matrix.heldBytes }
      elementType = bytes.max { ($0.value, $1.key.name) < ($1.value, $0.key.name) }?.key ?? .float32
    }

    /// Bytes that stay in memory.
    /// - Parameter usesAll: whether what is packed once it is used will be.
    func kept(_ residency: WeightResidency, usesAll: Bool) -> Int {
      tensors.reduce(0) { sum, tensor in
        let isHeld = !tensor.isMatrix || (usesAll || !packedOnceUsed.contains(tensor.name)) && isPacked(tensor, residency)
        return sum + (isHeld ? tensor.heldBytes : adapterBytes[tensor.name] ?? 0)
      }
    }

    private func isPacked(_ tensor: TensorExtent, _ residency: WeightResidency) -> Bool {
      residency.isPacked(tensor.heldBytes) || !tensor.isStreamable && residency != .packedOnceUsed
    }

    /// Matrices that do not stay in memory.
    func streamed(_ residency: WeightResidency) -> Int {
      streamedParameters(residency).count
    }

    func streamedParameters(_ residency: WeightResidency) -> Set<String> {
      guard case .streamed = residency else { return [] }
      return Set(tensors.filter { $0.isMatrix && !isPacked($0, residency) }.map(\.name))
    }

    /// Sizes above which weights can be streamed, each of which makes a difference, the largest first.
    var thresholds: [Int] {
      canBeStreamed ? Array(Set(tensors.filter { $0.isMatrix && $0.isStreamable }.map(\.heldBytes)).sorted(by: >).dropFirst()) + [0] : []
    }
  }

  init(_ files: ModelFiles, of family: any ModelFamily, weights: WeightForm?, adapters: [AdapterUse] = [], threads: Int) throws {
    let match = adapters.isEmpty ? .none : try AdapterMatch(adapters, targets: family.adapterTargets(files))
    usual = try Components(files, of: family, match) { try weights ?? files.usualForm(of: $0) }
    let needsOther = try weights == nil && usual.parts.contains { try files.usualForm(of: $0.part.name) != nil }
    stored = needsOther ? try Components(files, of: family, match) { _ in weights } : usual
    scale = usual.assembly.autoencoder.spatialScale
    self.threads = threads
  }

  /// One guided picture of the size that the model was trained on.
  var usualExtent: GenerationExtent? {
    usual.assembly.predictor.sampleSides.map { GenerationExtent(size: PixelSize(width: $0.width * scale, height: $0.height * scale)) }
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
    // Of the predictor each size of matrices makes a difference; of the others all are streamed, or none.
    func residencies(_ parts: [Component], isFine: Bool = false) -> [WeightResidency] {
      guard parts.allSatisfy(\.canBeStreamed) else { return [.packed] }
      let thresholds = isFine ? Set(parts.flatMap(\.thresholds)).sorted(by: >) : [0]
      return [.packed] + thresholds.map { .streamed(above: $0) }
    }
    func choices(_ components: Components, widensSmall: Bool) -> [MemoryChoice] {
      tilings.flatMap { tiling in
        residencies(components.parts(.autoencoder)).flatMap { autoencoder in
          residencies(components.parts(.conditioner)).flatMap { conditioner in
            residencies(components.parts(.predictor), isFine: true).map {
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

  /// What a process takes without a model: the program and its libraries, what those make of their own, threads.
  private static let programBytes = 38_000_000
  /// What stays of the file beside a matrix that is streamed: the system maps pages around those that are asked for.
  private static let bytesPerStreamedMatrix = 1 << 16
  /// What pages and gaps add to weights that are kept, to buffers, and to those of the autoencoder, whose results are large and take turns in
  /// memory; measured.
  private static let waste = (kept: 1.02, buffers: 1.04, pictures: 1.1)

  /// What passes take, each of which belongs to several choices: followed once for each.
  final class Passes {
    fileprivate struct Key: Hashable {
      var role: ModelPart.Role
      var encodes = false
      var widensSmall: Bool
      var streamsAbove: Int?
      var height = 0
      var width = 0
    }
    fileprivate var known: [Key: Pass] = [:]

    init() {}
  }

  /// A pass that was followed, and what it made.
  fileprivate struct Pass {
    let work: WorkCounter
    var conditioning: Conditioning?
  }

  private func followed(
    _ passes: Passes, _ role: ModelPart.Role, _ choice: MemoryChoice, encodes: Bool = false, height: Int = 0, width: Int = 0,
    _ follow: (CountingEngine) throws -> Conditioning?
  ) throws -> Pass {
    var key = Passes.Key(role: role, encodes: encodes, widensSmall: choice.widensSmall, height: height, width: width)
    if case .streamed(let above) = choice.residency(role) { key.streamsAbove = above }
    if let known = passes.known[key] { return known }
    let engine = CountingEngine(WorkCounter(), threads: threads, residency: choice.residency(role))
    let pass = Pass(work: engine.counter, conditioning: try follow(engine))
    passes.known[key] = pass
    return pass
  }

  /// - Parameter passes: of the same extent.
  func cost(of choice: MemoryChoice, _ extent: GenerationExtent, passes: Passes = Passes()) throws -> MemoryCost {
    let (height, width) = (extent.size.height / scale, extent.size.width / scale)
    let components = components(choice), assembly = components.assembly
    let text = try followed(passes, .conditioner, choice) { try assembly.followConditioner(extent.images, size: extent.size, $0) }
    let pass = try followed(passes, .predictor, choice) { engine in
      let conditioning = text.conditioning?.extended(to: extent.images * extent.rowsPerImage, by: engine)
      try assembly.followPass(
        conditioning, latents: extent.images * (extent.sharesLatents ? 1 : extent.rowsPerImage), height: height, width: width, engine)
      return nil
    }.work
    let tiles = choice.tiling.tiles(height: height, width: width, scale: scale)
    let tile = (height: min(height, tiles?.latentSide ?? height), width: min(width, tiles?.latentSide ?? width))
    let decoding = try followed(passes, .autoencoder, choice, height: tile.height, width: tile.width) {
      try assembly.followDecoder(height: tile.height, width: tile.width, $0)
      return nil
    }.work
    let encoding = try followed(passes, .autoencoder, choice, encodes: true, height: tile.height, width: tile.width) {
      if extent.encodesPicture { try assembly.followEncoder(height: tile.height * scale, width: tile.width * scale, $0) }
      return nil
    }.work
    let kept = components.parts.reduce(0) { $0 + $1.kept(choice.residency($1.part.role), usesAll: extent.encodesPicture) }
    // The pictures that are done, and copies of the one that is being made.
    let pictures = (extent.images + 3) * extent.size.width * extent.size.height * 3 * 4
    let latents = Self.waste.buffers * Double(max(text.work.peakBytes, pass.peakBytes))
    let passing = max(latents, Self.waste.pictures * Double(max(decoding.peakBytes, encoding.peakBytes)) + Double(pictures))
    let area = Double(height * width) / Double(tile.height * tile.width) * (tiles?.areaFactor(height: height, width: width) ?? 1)
    let images = Double(extent.images) * area
    let streamed = components.parts.reduce(0) { $0 + $1.streamed(choice.residency($1.part.role)) }
    let program = Self.programBytes + assembly.otherBytes + Self.bytesPerStreamedMatrix * streamed
    return MemoryCost(
      peakBytes: program + Int(Self.waste.kept * Double(kept) + passing), keptBytes: kept,
      step: .init(operations: pass.operations, packedBytes: pass.packedBytes),
      // The prompt and the negative prompt.
      text: .init(operations: 2 * text.work.operations, packedBytes: 2 * text.work.packedBytes),
      pictures: .init(
        operations: images * (decoding.operations + encoding.operations),
        packedBytes: images * (decoding.packedBytes + encoding.packedBytes)))
  }
}

/// Passes that are followed by a counting engine, with inputs that have no elements.
extension ModelAssembly {
  /// What conditioners make of so many empty prompts, and of a picture.
  func followConditioner(_ prompts: Int, size: PixelSize, _ engine: CountingEngine) throws -> Conditioning {
    let texts = try conditioner.condition(ConditioningRequest(Array(repeating: "", count: prompts), size: size), in: engine.context)
    var noise: any NoiseSource = TorchGenerator(seed: 0)
    return try imageConditioners.reduce(texts) {
      try $0.adding($1.condition(ImagePrompt([Tensor(shape: [1, 1, 1, 3])]), drawing: &noise, in: engine.context).prompt)
    }
  }

  /// A pass after the first, which leaves what every pass needs of the text.
  fileprivate func followPass(
    _ conditioning: Conditioning?, latents: Int, height: Int, width: Int, _ engine: CountingEngine
  ) throws {
    let conditioning = completed(conditioning ?? Conditioning(rows: latents), by: engine)
    var memory = PassMemory()
    for _ in 0..<2 {
      engine.counter.beginPass()
      _ = try predictor.predict(
        engine.input([latents, height, width, predictor.inputChannels]), timestep: 0,
        conditioning: conditioning, memory: &memory, in: engine.context)
    }
  }

  /// With what a task gives the predictor beside the text.
  func completed(_ conditioning: Conditioning, by engine: CountingEngine) -> Conditioning {
    var conditioning = conditioning
    for input in predictor.declaredInputs where input.isRequired && conditioning.inputs[input.name] == nil {
      conditioning.inputs[input.name] = engine.input(Shape([conditioning.rows] + input.shape))
    }
    return conditioning
  }

  fileprivate func followDecoder(height: Int, width: Int, _ engine: CountingEngine) throws {
    _ = try autoencoder.decode(engine.input([1, height, width, autoencoder.latentChannels]), in: engine.context)
  }

  fileprivate func followEncoder(height: Int, width: Int, _ engine: CountingEngine) throws {
    _ = try autoencoder.encode(engine.input([1, height, width, 3]), in: engine.context)
  }

  /// Whether decoding a picture of the usual size takes no more than a guided pass of the predictor.
  var decodesQuickly: Bool {
    guard let sides = predictor.sampleSides else { return false }
    let size = PixelSize(width: sides.width * autoencoder.spatialScale, height: sides.height * autoencoder.spatialScale)
    let engines = (0..<3).map { _ in CountingEngine(WorkCounter(), threads: 1) }
    do {
      let conditioning = try followConditioner(1, size: size, engines[0]).extended(to: 2, by: engines[1])
      try followPass(conditioning, latents: 1, height: sides.height, width: sides.width, engines[1])
      try followDecoder(height: sides.height, width: sides.width, engines[2])
    } catch { return false }
    return engines[2].counter.operations <= engines[1].counter.operations
  }
}

extension Conditioning {
  /// The same with so many rows, as inputs that the engine does not count.
  func extended(to rows: Int, by engine: CountingEngine) -> Conditioning {
    func input(_ tensor: Tensor) -> Tensor { engine.input(Shape([rows] + tensor.shape.dimensions.dropFirst())) }
    return Conditioning(
      rows: rows, contexts: contexts.map(input), pooled: pooled.map(input), inputs: inputs.mapValues(input), guidance: guidance)
  }
}
