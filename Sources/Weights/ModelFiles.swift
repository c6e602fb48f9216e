import Foundation
import Tensor

/// The files of a model, whichever way they are laid out: what its components are, their configurations and their weights.
///
/// All names are diffusers': those of `config.json` and of the tensors. A single file answers as its `CheckpointLayout` has made it out.
public struct ModelFiles: Sendable {
  /// How a model's files are laid out.
  public enum Layout: String, Codable, Sendable {
    /// A folder with `model_index.json`.
    case diffusers
    /// The folder of one component, with its `config.json`.
    case component
    /// One `.safetensors` file.
    case singleFile
  }

  enum Source: Sendable {
    case folder(ModelFolder)
    case checkpoint(Checkpoint)
  }

  /// The folder or the file.
  public let url: URL
  let source: Source

  /// The classes that its components can be made of.
  package let registry: ComponentRegistry

  /// - Parameters:
  ///   - url: a model's folder, the folder of one component, or a `.safetensors` file.
  ///   - registry: the classes that components can be made of.
  ///   - layouts: those of single files, of which the first that knows the file decides.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`.
  package init(_ url: URL, registry: ComponentRegistry = ComponentRegistry(), layouts: [any CheckpointLayout] = []) throws {
    let path = url.path(percentEncoded: false)
    var isFolder: ObjCBool = false
    guard url.isFileURL, !path.utf8.contains(0), FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
      throw ModelFilesError.notFound(path: printable(path))
    }
    (self.url, self.registry) = (url, registry)
    if isFolder.boolValue {
      source = .folder(try ModelFolder(url))
      return
    }
    if ["ckpt", "bin", "pt", "pth"].contains(url.pathExtension.lowercased()) { throw ModelFilesError.pickledWeights(path: path) }
    if let foreign = ForeignFile(extension: url.pathExtension) { throw ModelFilesError.foreign(path: path, foreign) }
    let file = try TensorFileFormat.open(url)
    if let foreign = ForeignFile(names: file.names) { throw ModelFilesError.foreign(path: path, foreign) }
    for layout in layouts {
      guard let checkpoint = try layout.checkpoint(of: file) else { continue }
      source = .checkpoint(checkpoint)
      return
    }
    throw ModelFilesError.notAModel(path: path, reason: "it has no \(layouts.map(\.marks).joined(separator: ", and no "))")
  }

  /// How the files are laid out.
  public var layout: Layout {
    switch source {
    case .folder(let folder): folder.isComponent ? .component : .diffusers
    case .checkpoint: .singleFile
    }
  }

  /// The pipeline's class in diffusers, where the files say it.
  public var className: String? {
    switch source {
    case .folder(let folder): folder.className
    case .checkpoint(let checkpoint): checkpoint.className
    }
  }

  /// What the model consists of: `unet`, `vae`, `text_encoder`, `scheduler`, …, sorted.
  public var components: [String] {
    switch source {
    case .folder(let folder): folder.components.map(\.name)
    case .checkpoint(let checkpoint): checkpoint.components.keys.sorted()
    }
  }

  /// A component's class in diffusers or transformers; nil where there is no such component.
  public func className(of component: String) -> String? {
    switch source {
    case .folder(let folder): folder.components.first { $0.name == component }?.className
    case .checkpoint(let checkpoint): checkpoint.components[component]?.className
    }
  }

  /// The JSON of a component's `config.json`, `scheduler_config.json` or `tokenizer_config.json`; nil where it has none.
  ///
  /// - Throws: `ModelFilesError`.
  public func configuration(of component: String) throws -> Data? {
    switch source {
    case .folder(let folder): try folder.configuration(of: component)
    case .checkpoint(let checkpoint): try checkpoint.component(component).configuration
    }
  }

  /// A component's tensors, under the names that diffusers 0.42 and transformers 5 give them: CLIP's without `text_model.`.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`.
  public func weights(of component: String) throws -> any WeightSource { try table(of: component).table }

  /// The same in another form, each tensor converted when a layer asks for it; nil: as the files have them.
  ///
  /// - Parameter context: whose threads convert.
  /// - Throws: `ModelFilesError`, `SafetensorsError`; the source throws `WeightError.outOfRange` where the form cannot hold a value.
  public func weights(of component: String, as form: WeightForm?, in context: ExecutionContext) throws -> any WeightSource {
    let source = try weights(of: component)
    return form.map { ConvertedWeights(source: source, form: $0, rule: quantization(of: component), context: context) } ?? source
  }

  /// What 8 bits suit of a component; nothing of one whose class nobody registered.
  func quantization(of component: String) -> QuantizationRule { registry[className(of: component)]?.quantization ?? .none }

  /// A component's configuration, without which it cannot be made.
  /// - Throws: `ConfigurationError.malformed` where there is none, `ModelFilesError`.
  package func requiredConfiguration(of component: String) throws -> Data {
    guard let json = try configuration(of: component) else {
      throw ConfigurationError.malformed(component: component, reason: "there is no config.json")
    }
    return json
  }

  /// The form in which a component is held where none is asked for: nil, as the file has it, or float32 for 16-bit weights that are few. They
  /// fit a processor's cache then too, and widening them at every use would take a tenth of a small model's time.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`.
  public func usualForm(of component: String) throws -> WeightForm? {
    let extents = try extents(of: component, as: .float32)
    // 8 bits were somebody's choice.
    guard !extents.contains(where: { $0.storedType == .q8 }), extents.contains(where: { $0.storedType != .float32 }) else { return nil }
    return extents.reduce(0) { $0 + $1.heldBytes } > Self.cachedBytes ? nil : .float32
  }

  /// What the last level of most processors' caches holds.
  private static let cachedBytes = 32 << 20

  func table(of component: String) throws -> (table: WeightTable, files: [any TensorFile]) {
    switch source {
    case .folder(let folder): return try folder.weights(of: component)
    case .checkpoint(let checkpoint):
      guard let table = try checkpoint.component(component).table else {
        throw ModelFilesError.missingWeights(folder: url.path(percentEncoded: false) + " (\(component))")
      }
      return (table, checkpoint.file.parts)
    }
  }

  /// A component's weights without their values: for networks that are followed by a `CountingEngine`, and not computed.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`.
  public func extentSource(of component: String, as form: WeightForm? = nil) throws -> any WeightSource {
    ExtentSource(try extents(of: component, as: form))
  }

  /// A component's tensors as layers would be given them in a form: what a plan for memory counts. Those without elements take no room, and no
  /// layer asks for one; their other extents can be anything.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`.
  package func extents(of component: String, as form: WeightForm?) throws -> [TensorExtent] {
    let rule = quantization(of: component)
    return try table(of: component).table.tensors.compactMap { name, stored in
      guard stored.data.count > 0, let held = stored.format else { return nil }
      return TensorExtent(
        name: name, shape: stored.shape,
        elementType: form?.elementType(of: held, shape: stored.shape, name: name, rule: rule) ?? held,
        storedType: held)
    }
  }

  /// A file of a component, such as `vocab.json` of `tokenizer`; nil where there is none, and always for a single file.
  public func file(_ component: String, _ name: String) -> URL? {
    switch source {
    case .folder(let folder): folder.file(component, name)
    case .checkpoint: nil
    }
  }

  /// The contents of `generation_defaults.json`, in which a model recommends steps and guidance; nil where there is none.
  ///
  /// - Throws: `ModelFilesError`.
  public var generationDefaults: Data? {
    get throws {
      switch source {
      case .folder(let folder): folder.isComponent ? nil : try folder.contents(of: "generation_defaults.json")
      case .checkpoint: nil
      }
    }
  }

  /// Tensors of a single file that belong to no component and are nothing that training is known to leave there, sorted.
  public var leftOver: [String] {
    switch source {
    case .folder: []
    case .checkpoint(let checkpoint): checkpoint.leftOver
    }
  }

  /// Tensors of a single file that belong to no component: averages kept for training, noise schedules.
  var ignoredTensors: Int {
    switch source {
    case .folder: 0
    case .checkpoint(let checkpoint): checkpoint.file.names.count - checkpoint.owners.count
    }
  }
}
