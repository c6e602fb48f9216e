import Autoencoder
import Foundation
import Tensor
import TextEncoder
import UNet
import LatentDiffusionImageEncoder
import LatentDiffusionWeights

/// What models can be made of: classes of components, and families. A value: another package adds to a copy and loads with that.
///
/// ```swift
/// var registry = ModelRegistry.standard
/// registry.components.register(OwnPredictor.self)
/// registry.families.append(OwnFamily())
/// let model = try DiffusionModel.load(from: url, registry: registry)
/// ```
public struct ModelRegistry: Sendable {
  /// By the names of their classes.
  public var components: ComponentRegistry
  /// Of which the first that fits a model takes it.
  public var families: [any ModelFamily]

  /// What the library brings.
  public static let standard = ModelRegistry(
    components: ComponentRegistry([
      UNet2DConditionModel.self, KUNet2DConditionModel.self, UNet2DModel.self, UNetSpatioTemporalConditionModel.self, AutoencoderKL.self,
      AsymmetricAutoencoderKL.self, AutoencoderKLTemporalDecoder.self, AutoencoderTiny.self, VQModel.self,
      CLIPTextModel.self, LDMBertModel.self, ClassEmbedder.self, CLIPVisionModelWithProjection.self, StableUnCLIPImageNormalizer.self,
      ControlNetModel.self, T2IAdapter.self, MotionAdapter.self,
    ]),
    families: [
      StableDiffusionFamily(), StableDiffusionXLFamily(), StableDiffusionUpscaleFamily(), StableDiffusionLatentUpscaleFamily(),
      ImageVariationFamily(), StableVideoDiffusionFamily(), LDMFamily(), LDMTextToImageFamily(), TextToVideoSDFamily(),
    ])

  /// - Parameters:
  ///   - components: by the names of their classes.
  ///   - families: of which the first that fits takes a model.
  public init(components: ComponentRegistry, families: [any ModelFamily]) { (self.components, self.families) = (components, families) }

  /// How single files hold models, or what is added to models.
  var layouts: [any CheckpointLayout] {
    [ControlNetCheckpoint(), T2IAdapterCheckpoint(), MotionAdapterCheckpoint()] + families.compactMap(\.checkpointLayout)
  }

  /// The family of a model: by the class of its pipeline, and where the files do not say it, by the parts that are there.
  ///
  /// - Throws: `ModelFilesError` where there is none, or where a component has another class than the family's: whatever else could be said of
  ///   such a model would mislead.
  func family(of files: ModelFiles) throws(ModelFilesError) -> any ModelFamily {
    let path = files.url.path(percentEncoded: false), supported = families.map(\.name).joined(separator: ", ")
    let controls = ControlNetModel.classNames + T2IAdapter.classNames
    if files.layout != .diffusers, let name = files.components.compactMap(files.className).first(where: controls.contains) {
      throw .foreign(path: path, ForeignFile("a \(name), which guides a model, not a model", "give the model, and this beside it"))
    }
    if files.layout != .diffusers, files.components.compactMap(files.className).contains(where: MotionAdapter.classNames.contains) {
      throw .foreign(
        path: path,
        ForeignFile("a motion module (AnimateDiff), not a model", "give the model that it was made for, and this as its motion module"))
    }
    guard files.layout != .component else {
      let name = files.components.first.flatMap(files.className) ?? ""
      throw .foreign(
        path: path, ForeignFile("the folder of one component (\(printable(name)))", "give the folder above it, which has model_index.json"))
    }
    let found = families.first { family in
      files.className.map(family.pipelineClasses.contains) ?? family.parts.contains { files.components.contains($0.name) }
    }
    guard let family = found else {
      let kind =
        files.className.map { Self.foreignFamily($0) ?? "a model for \($0)" } ?? "a model that does not say for which pipeline it is"
      throw .unsupported(path: path, family: kind, supported: supported)
    }
    for part in family.parts(of: files) where Self.isForeign(part, in: files) {
      let name = files.className(of: part.name) ?? ""
      throw .unsupported(
        path: files.url(of: part.name).path(percentEncoded: false),
        family: "a model whose \(part.name) is a \(Self.componentNames[name] ?? name)", supported: supported)
    }
    let parts = family.parts(of: files).filter { $0.role != .accessory }
    let missing = parts.filter { !files.components.contains($0.name) }
    // A folder names the parts that it should have, and whoever asks for one that is missing says so.
    guard files.layout == .diffusers || missing.isEmpty else {
      throw .incomplete(
        path: path, found: parts.filter { files.components.contains($0.name) }.map(\.words), missing: missing.map(\.words))
    }
    return family
  }

  /// Whether a part is there and has a class that the family does not know.
  private static func isForeign(_ part: ModelPart, in files: ModelFiles) -> Bool {
    guard let name = files.className(of: part.name), !part.classNames.isEmpty else { return false }
    return !part.classNames.contains(name)
  }

  /// What people call components that no family here has.
  private static let componentNames = [
    "ConsistencyDecoderVAE": "consistency decoder (ConsistencyDecoderVAE)",
    "UNetSpatioTemporalConditionModel": "video U-Net (UNetSpatioTemporalConditionModel)",
    "AutoencoderKLTemporalDecoder": "video autoencoder (AutoencoderKLTemporalDecoder)",
  ]

  /// What people call the family of a pipeline.
  private static func foreignFamily(_ pipeline: String) -> String? {
    let beginnings = [
      ("OV", "an OpenVINO model"), ("Onnx", "an ONNX model"), ("ORT", "an ONNX model"), ("Flax", "a Flax (JAX) model"),
      ("StableDiffusion3", "a Stable Diffusion 3 model"),
      ("StableCascade", "a Stable Cascade model"),
      ("Wuerstchen", "a Stable Cascade (Würstchen) model"), ("Flux", "a Flux model"),
      ("StableUnCLIP", "a Stable unCLIP model that begins with a prior"),
      ("AnimateDiff", "an AnimateDiff model"), ("PIA", "a PIA model"), ("LDM", "a latent diffusion model of 2022"),
      ("AltDiffusion", "an AltDiffusion model"),
      ("Kandinsky", "a Kandinsky model"), ("PixArt", "a PixArt model"), ("IF", "a DeepFloyd IF model"), ("ZImage", "a Z-Image model"),
      ("QwenImage", "a Qwen-Image model"), ("Sana", "a Sana model"), ("Lumina", "a Lumina model"), ("Hunyuan", "a Hunyuan model"),
      ("AuraFlow", "an AuraFlow model"), ("Wan", "a Wan video model"), ("LTX", "an LTX video model"), ("CogVideo", "a CogVideoX model"),
    ]
    return beginnings.first { pipeline.hasPrefix($0.0) }.map { "\($0.1) (\(pipeline))" }
  }
}

extension ModelFiles {
  /// A component of whatever class is registered for it.
  ///
  /// - Parameters:
  ///   - name: of the component.
  ///   - weights: the form in which weights are held; nil: as the files have them, and small components as float32.
  ///   - plan: of the whole model: its form and what of the weights is kept in memory are taken.
  ///   - context: whose threads load.
  /// - Throws: `ModelFilesError.noSuchComponent` where the model has none of this name, and what reading and making it throws.
  public func component(
    _ name: String, weights: WeightForm? = nil, plan: MemoryPlan? = nil, in context: ExecutionContext = ExecutionContext()
  ) throws -> any ModelComponent {
    let form = if let plan { plan.form(of: name) } else { try weights ?? usualForm(of: name) }
    return try make(name, as: form, residency: plan?.residency(of: name) ?? .packed, in: context).component
  }

  /// Makes a component of its files.
  ///
  /// - Parameters:
  ///   - form: in which its weights are held; nil: as the files have them.
  ///   - residency: where its weights are between uses.
  /// - Throws: `ModelFilesError.unsupported` for a class that nobody registered, and what making the component throws.
  func make(
    _ name: String, as form: WeightForm?, residency: WeightResidency = .packed, in context: ExecutionContext
  ) throws -> (component: any ModelComponent, report: LoadReport) {
    let source = try weights(of: name, as: form, in: context)
    return try make(name, from: source, residency: residency, in: context)
  }

  func make(
    _ name: String, from source: any WeightSource, residency: WeightResidency = .packed, in context: ExecutionContext
  ) throws -> (component: any ModelComponent, report: LoadReport) {
    let json = try requiredConfiguration(of: name)
    guard let type = registry[className(of: name), json] else {
      throw ModelFilesError.unsupported(
        path: url.path(percentEncoded: false), family: "a model whose \(name) is a \(className(of: name) ?? "component without a class")",
        supported: "a class that is registered")
    }
    return try context.observed(Work(.loadingComponent, name)) {
      try LoadReport.load(from: source, residency: residency, in: context) { try type.init(configuration: json, weights: $0) }
    }
  }
}

extension ModelFiles {
  /// The name of the first component of one of these classes.
  ///
  /// - Parameter name: that it must have; nil: any.
  /// - Throws: `ModelFilesError.noSuchComponent` where there is none.
  func component(of classNames: [String], named name: String? = nil) throws(ModelFilesError) -> String {
    let fitting = components.first { (name ?? $0) == $0 && className(of: $0).map(classNames.contains) ?? false }
    guard let fitting else { throw .noSuchComponent(name: name ?? classNames.first ?? "component", model: url.path(percentEncoded: false)) }
    return fitting
  }
}

extension ModelComponent {
  /// A component by itself: from the folder of a whole model, its own folder, or a single file that holds a model or this component. An autoencoder
  /// takes pictures whole: `TiledAutoencoder` around it takes large ones in tiles.
  ///
  /// ```swift
  /// let autoencoder = try AutoencoderKL.load(from: URL(filePath: "stable-diffusion-v1-5/vae"))
  /// ```
  ///
  /// - Parameters:
  ///   - url: where the files are: also a single file that holds this component alone.
  ///   - parts: as `ModelFiles.open` takes them.
  ///   - name: of the component, where a model has several of this class; nil: the first by name.
  ///   - weights: the form in which weights are held; nil: as the files have them, and small components as float32.
  ///   - plan: of the whole model: its form and what of the weights is kept in memory are taken.
  ///   - registry: whose families know how single files are laid out.
  ///   - context: whose threads load.
  /// - Throws: `ModelFilesError.noSuchComponent` where the model has none of this class, and what reading and making it throws.
  public static func load(
    from url: URL, replacing parts: [String: URL] = [:], named name: String? = nil, weights: WeightForm? = nil, plan: MemoryPlan? = nil,
    registry: ModelRegistry = .standard, in context: ExecutionContext = ExecutionContext()
  ) throws -> Self {
    try loadReported(from: url, replacing: parts, named: name, weights: weights, plan: plan, registry: registry, in: context).component
  }

  /// The same on the engine's threads, for programs that must not wait: nothing of the caller's is blocked, and cancelling the task ends it.
  /// - Throws: what `load` throws.
  public static func loaded(
    from url: URL, replacing parts: [String: URL] = [:], named name: String? = nil, weights: WeightForm? = nil, plan: MemoryPlan? = nil,
    registry: ModelRegistry = .standard, in context: ExecutionContext = ExecutionContext()
  ) async throws -> Self {
    try await context.run {
      try load(from: url, replacing: parts, named: name, weights: weights, plan: plan, registry: registry, in: $0)
    }
  }

  /// The same with a report of the tensors that nothing asked for.
  /// - Throws: what `load` throws.
  public static func loadReported(
    from url: URL, replacing parts: [String: URL] = [:], named name: String? = nil, weights: WeightForm? = nil, plan: MemoryPlan? = nil,
    registry: ModelRegistry = .standard, in context: ExecutionContext = ExecutionContext()
  ) throws -> (component: Self, report: LoadReport) {
    var registry = registry
    registry.components.register(Self.self)
    let files = try ModelFiles.open(part: url, replacing: parts, registry: registry)
    let fitting = try files.component(of: classNames, named: name)
    // A network beside a model is known to its plan by its place.
    let planned = plan?.isBeside(url) == true ? url.networkName : fitting
    let form = if let plan { plan.form(of: planned) } else { try weights ?? files.usualForm(of: fitting) }
    let made = try files.make(fitting, as: form, residency: plan?.residency(of: planned) ?? .packed, in: context)
    if !made.report.unused.isEmpty {
      context.workObserver?.warned("\(LoadWarning.unusedTensors(component: fitting, names: made.report.unused))")
    }
    guard let component = made.component as? Self else {
      throw ModelFilesError.noSuchComponent(name: fitting, model: url.path(percentEncoded: false))
    }
    return (component, made.report)
  }
}
