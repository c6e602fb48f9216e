import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import Tensor

/// What the passes of a generation take, each of which belongs to several choices: followed once for each. Weights are added up once for each, too.
final class MemoryPasses {
  private struct Key: Hashable {
    var role: ModelPart.Role
    var encodes = false
    var widensSmall: Bool
    var streamsAbove: Int?
    var height = 0
    var width = 0

    init(_ role: ModelPart.Role, _ choice: MemoryChoice, encodes: Bool, height: Int = 0, width: Int = 0) {
      (self.role, widensSmall, self.encodes, self.height, self.width) = (role, choice.widensSmall, encodes, height, width)
      if case .streamed(let above) = choice.residency(role) { streamsAbove = above }
    }
  }

  /// A pass that was followed, and what it made.
  struct Pass {
    let work: WorkCounter
    var conditioning: Conditioning?
  }

  private var known: [Key: Pass] = [:]
  private var held: [Key: (kept: Int, streamed: Int)] = [:]

  func pass(
    _ role: ModelPart.Role, _ choice: MemoryChoice, encodes: Bool, height: Int, width: Int, _ follow: () throws -> Pass
  ) rethrows -> Pass {
    let key = Key(role, choice, encodes: encodes, height: height, width: width)
    if let known = known[key] { return known }
    let pass = try follow()
    known[key] = pass
    return pass
  }

  /// Bytes of weights that stay in memory, and the number of matrices that do not.
  func weights(of parts: MemoryParts, _ choice: MemoryChoice, usesAll: Bool) -> (kept: Int, streamed: Int) {
    ModelPart.Role.allCases.reduce((0, 0)) { sum, role in
      let key = Key(role, choice, encodes: usesAll), residency = choice.residency(role)
      let weights =
        held[key]
        ?? parts.parts(role).reduce((0, 0)) { ($0.0 + $1.kept(residency, usesAll: usesAll), $0.1 + $1.streamed(residency)) }
      held[key] = weights
      return (sum.0 + weights.kept, sum.1 + weights.streamed)
    }
  }
}

/// Passes that are followed by a counting engine, with inputs that have no elements.
extension ModelAssembly {
  /// What conditioners make of so many empty prompts, and of pictures, so many for each image conditioner.
  func followConditioner(_ prompts: Int, size: PixelSize, pictures: [Int], _ engine: CountingEngine) throws -> Conditioning {
    let texts = try conditioner.condition(ConditioningRequest(Array(repeating: "", count: prompts), size: size), in: engine.context)
    var noise: any NoiseSource = TorchGenerator(seed: 0)
    return try zip(imageConditioners, pictures).reduce(texts) {
      let prompt = ImagePrompt(Array(repeating: Tensor(shape: [1, 1, 1, 3]), count: $1.1))
      return try $0.adding($1.0.condition(prompt, drawing: &noise, in: engine.context).prompt)
    }
  }

  /// A pass after the first, which leaves what every pass needs of the text, and after those that leave deep features.
  /// - Parameter resting: the conditioning of rows in other passes, which remember something meanwhile.
  func followPass(
    _ conditioning: Conditioning?, resting: Conditioning? = nil, _ extent: GenerationExtent, steeredBy controls: [any ControlModel] = [],
    height: Int, width: Int,
    _ engine: CountingEngine
  ) throws {
    func latents(_ rows: Int) -> Int { extent.images * (extent.sharesLatents ? 1 : rows) }
    let conditioning = completed(conditioning ?? Conditioning(rows: latents(extent.rowsPerImage)), by: engine)
    let frames = predictor.clip.map { extent.frames ?? $0.usual }
    func input(_ rows: Int) -> Tensor {
      engine.input(Shape([latents(rows)] + (frames.map { [$0] } ?? []) + [height, width, predictor.inputChannels]))
    }
    // Whole passes take most: each is one here.
    let shortcuts = Shortcuts(stepCaching: extent.stepCaching.map { StepCaching(interval: 1, branch: $0.branch, order: $0.order) })
    let passes = 2 + (extent.stepCaching?.order ?? 0)
    var others = PassMemory(shortcuts)
    if let resting {
      let told = completed(resting, by: engine)
      for _ in 1..<passes {
        _ = try predictor.predict(input(extent.restingRows), timestep: 0, conditioning: told, memory: &others, in: engine.context)
      }
    }
    let steered = try ControlledPredictor.steering(
      extent.frameWindows.map { try predictor.drawing(in: $0) } ?? predictor,
      controls.map { Control($0, picture: engine.input([1, extent.size.height, extent.size.width, $0.pictureChannels])) },
      rows: Array(repeating: GuidanceRow(.prompt), count: extent.rowsPerImage), steps: 2, count: extent.images, frames: frames,
      in: engine.context)
    var memory = PassMemory(shortcuts)
    for _ in 0..<passes {
      engine.counter.beginPass()
      _ = try steered.predict(
        input(extent.rowsPerImage), timestep: 0, conditioning: conditioning, memory: &memory, in: engine.context)
    }
    withExtendedLifetime(others) {}
  }

  /// With what a task gives the predictor beside the text.
  func completed(_ conditioning: Conditioning, by engine: CountingEngine) -> Conditioning {
    var conditioning = conditioning
    for input in predictor.declaredInputs where input.isRequired && conditioning.inputs[input.name] == nil {
      conditioning.inputs[input.name] = engine.input(Shape([conditioning.rows] + input.shape))
    }
    return conditioning
  }

  /// - Parameters:
  ///   - frames: that are decoded together.
  ///   - keepsPictures: whether a decoder that looks at what is kept of a picture is shown one.
  func followDecoder(height: Int, width: Int, frames: Int = 1, keepsPictures: Bool = false, _ engine: CountingEngine) throws {
    let latents = engine.input([frames, height, width, autoencoder.latentChannels]), scale = autoencoder.spatialScale
    guard frames == 1 else {
      _ = try autoencoder.decode(framesOfClip: latents, in: engine.context)
      return
    }
    guard keepsPictures, autoencoder.decodesKeptPictures else {
      _ = try autoencoder.decode(latents, in: engine.context)
      return
    }
    func input(_ channels: Int) -> Tensor { engine.input([1, height * scale, width * scale, channels]) }
    _ = try autoencoder.decode(latents, keeping: KeptPicture(input(3), new: input(1)), in: engine.context)
  }

  func followEncoder(height: Int, width: Int, _ engine: CountingEngine) throws {
    _ = try autoencoder.encode(engine.input([1, height, width, 3]), in: engine.context)
  }

  /// Whether decoding a picture of the usual size takes no more than a guided pass of the predictor.
  var decodesQuickly: Bool {
    guard let sides = predictor.sampleSides else { return false }
    let size = PixelSize(width: sides.width * autoencoder.spatialScale, height: sides.height * autoencoder.spatialScale)
    let engines = (0..<3).map { _ in CountingEngine(WorkCounter(), threads: 1) }
    do {
      let conditioning = try followConditioner(1, size: size, pictures: imageConditioners.map { _ in 1 }, engines[0])
        .extended(to: 2, by: engines[1])
      var extent = GenerationExtent(size: size)
      extent.frames = predictor.clip.map { _ in 1 }
      try followPass(conditioning, extent, height: sides.height, width: sides.width, engines[1])
      try followDecoder(height: sides.height, width: sides.width, engines[2])
    } catch { return false }
    return engines[2].counter.operations <= engines[1].counter.operations
  }
}

extension Conditioning {
  /// Bytes of all its rows.
  var bytes: Int { (contexts + [pooled].compactMap(\.self) + inputs.values).reduce(0) { $0 + 4 * $1.count } }

  /// The same with so many rows, as inputs that the engine does not count.
  /// - Parameter length: tokens of the text; nil: as many as it has.
  func extended(to rows: Int, length: Int? = nil, by engine: CountingEngine) -> Conditioning {
    func input(_ tensor: Tensor) -> Tensor { engine.input(Shape([rows] + tensor.shape.dimensions.dropFirst())) }
    var contexts = contexts.map(input)
    if let length, let text = contexts.first, text.shape.rank == 3 { contexts[0] = engine.input([rows, length, text.shape[2]]) }
    return Conditioning(
      rows: rows, contexts: contexts, pooled: pooled.map(input), inputs: inputs.mapValues(input), guidance: guidance)
  }
}
