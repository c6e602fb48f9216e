import Autoencoder
import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import Tensor

/// One part of a model at work by itself, on noise of the shapes that it takes: for whoever wants to know how long that takes.
///
/// ```swift
/// let pass = try SamplePass(.prediction, of: url, size: PixelSize(width: 512, height: 512), rows: 2)
/// try await context.run { try pass.run(in: $0) }
/// ```
///
/// Weights are read of the parts alone that the work is done by: their role says which these are, whatever a model calls them. The shapes of what they
/// take from other parts follow from the extents of those.
public struct SamplePass: Sendable {
  /// What is done.
  public enum Work: Sendable {
    /// A pass of the predictor, for as many latents as there are rows of conditioning; clips have as many frames as usual.
    case prediction
    /// A pass of a network that steers the predictor. What it makes of its pictures, once for all passes, is made before.
    case control(any ControlModel)
    /// Latents become pictures.
    case decoding
    /// Pictures become latents.
    case encoding
    /// A prompt becomes conditioning, as many times as there are rows.
    case conditioning(Prompt)

    fileprivate var role: ModelPart.Role? {
      switch self {
      case .prediction: .predictor
      case .control: nil
      case .decoding, .encoding: .autoencoder
      case .conditioning: .conditioner
      }
    }
  }

  private let body: @Sendable (ExecutionContext) throws -> Void

  /// Reads the weights, and makes what the pass takes.
  ///
  /// - Parameters:
  ///   - work: what is done.
  ///   - url: a model, as `DiffusionModel.load` takes it.
  ///   - parts: components from other files, by their names, as `DiffusionModel.load` takes them.
  ///   - size: of the pictures, in pixels.
  ///   - rows: of the pass: pictures or prompts.
  ///   - tiling: how pictures go through the autoencoder; nil: as the plan says, and without one as usual.
  ///   - weights: the form in which the weights are held; nil: as `DiffusionModel.load` holds them.
  ///   - plan: whose form of the weights, and what of them is kept in memory, are taken.
  ///   - registry: the classes and families that are known.
  ///   - context: whose threads load.
  /// - Throws: `GenerationError` for a size that cannot be; `ComponentError` where a network cannot steer the model's predictor; what reading the model throws.
  public init(
    _ work: Work, of url: URL, replacing parts: [String: URL] = [:], size: PixelSize, rows: Int = 1, tiling: AutoencoderTiling? = nil,
    weights: WeightForm? = nil, plan: MemoryPlan? = nil, registry: ModelRegistry = .standard,
    in context: ExecutionContext = ExecutionContext()
  ) throws {
    let files = try ModelFiles.open(url, replacing: parts, registry: registry)
    let assembly = try Self.assembly(files, of: registry.family(of: files), with: work.role, weights: weights, plan: plan, in: context)
    let sides = try assembly.latentSides(size, images: rows)
    let shape = Shape([rows, sides.height, sides.width])
    let autoencoder = TiledAutoencoder(assembly.autoencoder, tiling: tiling ?? plan?.tiling ?? .automatic)
    switch work {
    case .prediction:
      let frames = assembly.predictor.clip.map { [$0.usual] } ?? []
      let latents = noise(Shape([rows] + frames + [sides.height, sides.width, assembly.predictor.inputChannels]))
      let conditioning = try assembly.noise(rows: rows, size: size)
      body = { [predictor = assembly.predictor] in
        _ = try predictor.predict(latents, timestep: Self.timestep, conditioning: conditioning, in: $0)
      }
    case .control(let network):
      try network.check(assembly.predictor)
      let picture = noise([rows, size.height, size.width, network.pictureChannels]).clamped(to: 0...1)
      let pass = ControlPass(
        latents: noise(shape.with(assembly.predictor.inputChannels)), timestep: Self.timestep,
        conditioning: try assembly.noise(rows: rows, size: size), features: try network.features(of: picture, in: context))
      body = { context in
        var cache: (any Sendable)?
        _ = try network.residuals(pass, cache: &cache, in: context)
      }
    case .decoding:
      let latents = noise(shape.with(autoencoder.latentChannels)) / autoencoder.latentScale
      body = { _ = try autoencoder.decode(latents, in: $0) }
    case .encoding:
      let picture = noise([rows, size.height, size.width, 3]).clamped(to: -1...1)
      body = { _ = try autoencoder.encode(picture, in: $0) }
    case .conditioning(let prompt):
      let request = ConditioningRequest(Array(repeating: prompt, count: rows), size: size)
      body = { [conditioner = assembly.conditioner] in _ = try conditioner.condition(request, in: $0) }
    }
  }

  /// Does the work once.
  /// - Throws: `CancellationError`, and what the part throws.
  public func run(in context: ExecutionContext) throws { try body(context) }

  /// In the middle of those that predictors are trained with.
  private static let timestep: Float = 501

  /// A model of which the parts of one role have weights. The others are made of extents alone.
  private static func assembly(
    _ files: ModelFiles, of family: any ModelFamily, with role: ModelPart.Role?, weights: WeightForm?, plan: MemoryPlan?,
    in context: ExecutionContext
  ) throws -> ModelAssembly {
    // Prompts are read by a tokenizer, and extents by none.
    let reads = role == .conditioner
    var made = reads ? try family.accessories(of: files) : [:]
    for part in family.parts(of: files) where part.role != .accessory {
      made[part.name] =
        part.role == role
        ? try files.component(part.name, weights: weights, plan: plan, in: context)
        : try files.make(part.name, from: ExtentSource(files.extents(of: part.name, as: nil)), in: ExecutionContext()).component
    }
    return try family.assembled(ModelParts(made, areExtents: !reads))
  }
}

extension ModelAssembly {
  /// The latents of pictures.
  fileprivate func latentSides(_ size: PixelSize, images: Int) throws -> (height: Int, width: Int) {
    let scale = autoencoder.spatialScale
    guard size.width > 0, size.height > 0, size.width.isMultiple(of: scale), size.height.isMultiple(of: scale) else {
      throw GenerationError.indivisibleSize(width: size.width, height: size.height, multiple: scale)
    }
    // The count is `Int.max` if the product overflows.
    guard images > 0, Shape([images, size.width, size.height]).count <= GenerationRequest.maximumPixels else {
      throw GenerationError.tooLarge(width: size.width, height: size.height, images: images)
    }
    return (size.height / scale, size.width / scale)
  }

  /// Conditioning of the shapes that the conditioner gives and the predictor takes: noise, and ones where numbers have a meaning.
  fileprivate func noise(rows: Int, size: PixelSize) throws -> Conditioning {
    let engine = CountingEngine(WorkCounter(), threads: 1)
    let followed = try completed(
      followConditioner(1, size: size, pictures: imageConditioners.map { _ in 1 }, engine).extended(to: rows, by: engine), by: engine)
    return Conditioning(
      rows: rows, contexts: followed.contexts.map { LatentDiffusion.noise($0.shape) },
      pooled: followed.pooled.map { LatentDiffusion.noise($0.shape) },
      inputs: followed.inputs.mapValues { Tensor(repeating: 1, shape: $0.shape) }, guidance: predictor.embedsGuidance ? 7.5 : nil)
  }
}

extension Shape {
  fileprivate func with(_ channels: Int) -> Shape { Shape(dimensions + [channels]) }
}

/// The same noise every time.
private func noise(_ shape: Shape) -> Tensor {
  var generator = TorchGenerator(seed: 0)
  return Tensor(generator.normal(shape.count), shape: shape)
}
