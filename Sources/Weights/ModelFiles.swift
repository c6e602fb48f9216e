import Foundation
import Tensor

/// The files of a model in any layout: its components, their configurations and their weights.
///
/// All names of configuration keys and tensors are those of diffusers. For a single file, a `CheckpointLayout` translates them.
public struct ModelFiles: Sendable {
  /// How a model's files are laid out.
  public enum Layout: String, Codable, Sendable {
    /// A folder with `model_index.json`.
    case diffusers
    /// The folder of one component, with its `config.json`.
    case component
    /// One file: `.safetensors`, `.gguf`, `.ckpt`.
    case singleFile
  }

  enum Source: Sendable {
    case folder(ModelFolder)
    case checkpoint(Checkpoint)
  }

  /// The folder or the file.
  public let url: URL
  let source: Source

  /// The types that components can have.
  package let registry: ComponentRegistry

  /// Components that other files hold, by the names that they have here.
  private(set) var elsewhere: [String: Place] = [:]

  /// A component in the files of another model, or in a file of its own.
  package struct Place: Sendable {
    /// The files.
    package let files: ModelFiles
    /// The component's name in them.
    package let name: String

    package init(_ files: ModelFiles, _ name: String) { (self.files, self.name) = (files, name) }
  }

  /// - Parameters:
  ///   - url: a model's folder, the folder of one component, or a single file. A folder of Hugging Face's cache
  ///     (`models--OWNER--NAME`) stands for its main snapshot.
  ///   - registry: the types that components can have.
  ///   - layouts: the layouts of single files. The first that recognises the file is used.
  ///   - part: how a single file holds one component; nil: such a file is an error.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`, `ConfigurationError`.
  package init(
    _ url: URL, registry: ComponentRegistry = ComponentRegistry(), layouts: [any CheckpointLayout] = [], part: (any CheckpointLayout)? = nil
  ) throws {
    let path = url.path(percentEncoded: false)
    var isFolder: ObjCBool = false
    guard url.isFileURL, !path.utf8.contains(0), FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
      throw ModelFilesError.notFound(path: printable(path))
    }
    (self.url, self.registry) = (url, registry)
    if isFolder.boolValue {
      source = .folder(try ModelFolder(ModelFolder.snapshot(in: url)))
      return
    }
    if let foreign = ForeignFile(extension: url.pathExtension) { throw ModelFilesError.foreign(path: path, foreign) }
    let file = try TensorFileFormat.open(url)
    // What steers a model or is added to it has layouts of its own; some of its names are a U-Net's.
    let isControl =
      ForeignFile.isControlNet(file.names) || ForeignFile.isT2IAdapter(file.names) || ForeignFile.isMotionModule(file.names)
    if !isControl, ForeignFile(adapter: file.names) == nil, let checkpoint = try part?.checkpoint(of: file) {
      source = .checkpoint(checkpoint)
      return
    }
    if !isControl, let foreign = ForeignFile(names: file.names) { throw ModelFilesError.foreign(path: path, foreign) }
    for layout in layouts {
      guard let checkpoint = try layout.checkpoint(of: file) else { continue }
      source = .checkpoint(checkpoint)
      return
    }
    throw ModelFilesError.notAModel(path: path, reason: "it has no \(layouts.map(\.marks).joined(separator: ", and no "))")
  }

  /// The same model with components of other files in the place of its own, or beside them. What is derived of a file without a configuration, and what its
  /// tensors do not tell, is as the component of the same class says whose place it takes.
  ///
  /// - Parameter places: by the names that the components have here.
  /// - Throws: `ModelFilesError`, `ConfigurationError`.
  package func replacing(_ places: [String: Place]) throws -> ModelFiles {
    var result = self
    for (name, place) in places {
      let files = components.contains(name) ? try place.completed(by: Place(self, name)) : place.files
      result.elsewhere[name] = Place(files, place.name)
    }
    return result
  }

  /// Where a component is.
  package func url(of component: String) -> URL { elsewhere[component]?.files.url ?? url }

  /// How the files are laid out.
  public var layout: Layout {
    switch source {
    case .folder(let folder): folder.isComponent ? .component : .diffusers
    case .checkpoint: .singleFile
    }
  }

  /// The pipeline's class in diffusers, if the files name it.
  public var className: String? {
    switch source {
    case .folder(let folder): folder.className
    case .checkpoint(let checkpoint): checkpoint.className
    }
  }

  /// The names of the components: `unet`, `vae`, `text_encoder`, `scheduler`, …, sorted.
  public var components: [String] {
    let own =
      switch source {
      case .folder(let folder): folder.components.map(\.name)
      case .checkpoint(let checkpoint): Array(checkpoint.components.keys)
      }
    return Set(own).union(elsewhere.keys).sorted()
  }

  /// A setting of the pipeline that `model_index.json` says, such as `force_zeros_for_empty_prompt`; nil if it does not.
  public func flag(_ key: String) -> Bool? {
    switch source {
    case .folder(let folder): folder.flags[key]
    case .checkpoint(let checkpoint): checkpoint.flags[key]
    }
  }

  /// A setting of the pipeline that is a number, such as `max_noise_level`; nil if `model_index.json` does not say it.
  public func number(_ key: String) -> Double? { if case .folder(let folder) = source { folder.numbers[key] } else { nil } }

  /// A setting of the pipeline that gives names to names, such as `id2label`; nil if `model_index.json` does not say it.
  public func names(_ key: String) -> [String: String]? { if case .folder(let folder) = source { folder.names[key] } else { nil } }

  /// A component's class in diffusers or transformers; nil if there is no such component.
  public func className(of component: String) -> String? {
    if let place = elsewhere[component] { return place.files.className(of: place.name) }
    return switch source {
    case .folder(let folder): folder.components.first { $0.name == component }?.className
    case .checkpoint(let checkpoint): checkpoint.components[component]?.className
    }
  }

  /// The JSON of a component's `config.json`, or of its scheduler, tokenizer or preprocessor; nil if it has none.
  ///
  /// - Throws: `ModelFilesError`.
  public func configuration(of component: String) throws -> Data? {
    if let place = elsewhere[component] { return try place.files.configuration(of: place.name) }
    return switch source {
    case .folder(let folder): try folder.configuration(of: component)
    case .checkpoint(let checkpoint): try checkpoint.component(component).configuration
    }
  }

  /// A component's tensors, under the names that diffusers 0.42 and transformers 5 give them: CLIP's without `text_model.`.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`.
  public func weights(of component: String) throws -> any WeightSource { try table(of: component).table }

  /// The same weights in another form. A tensor is converted when a layer asks for it. With a nil form, tensors are as in the files.
  ///
  /// - Parameter context: its threads convert.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`; the source throws `WeightError.outOfRange` if the form cannot hold a value.
  public func weights(of component: String, as form: WeightForm?, in context: ExecutionContext) throws -> any WeightSource {
    let source = try weights(of: component)
    return form.map { ConvertedWeights(source: source, form: $0, rule: quantization(of: component), context: context) } ?? source
  }

  /// The same weights with adapters merged into them: W + ΔW in float32, then in the form, or in that of the file.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`.
  package func weights(
    of component: String, as form: WeightForm?, adaptedBy match: AdapterMatch, in context: ExecutionContext
  ) throws -> any WeightSource {
    guard let changes = match.changes[component] else { return try weights(of: component, as: form, in: context) }
    return AdaptedWeights(
      source: try weights(of: component), changes: changes, form: form, rule: quantization(of: component), context: context)
  }

  /// The shapes of a component's tensors, by name.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`.
  package func shapes(of component: String) throws -> [String: Shape] { try table(of: component).table.tensors.mapValues(\.shape) }

  /// The rule for a component's 8-bit tensors; none are allowed if its class is not registered.
  func quantization(of component: String) -> QuantizationRule { registry[className(of: component)]?.quantization ?? .none }

  /// The configuration of a component, which cannot be built without one.
  /// - Throws: `ConfigurationError.malformed` if there is none, `ModelFilesError`.
  package func requiredConfiguration(of component: String) throws -> Data {
    guard let json = try configuration(of: component) else {
      throw ConfigurationError.malformed(component: component, reason: "there is no config.json")
    }
    return json
  }

  /// The form of a component's weights if the caller chooses none: nil (as in the file), or float32 for a small component with 16-bit weights. As float32
  /// these still fit in the cache, and widening them at every use would cost a small model a tenth of its time.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`.
  public func usualForm(of component: String) throws -> WeightForm? {
    let extents = try extents(of: component, as: .float32)
    // A file with fewer bits was made so on purpose.
    guard !extents.contains(where: { $0.storedType.blockValues > 1 }), extents.contains(where: { $0.storedType != .float32 }) else {
      return nil
    }
    return extents.reduce(0) { $0 + $1.heldBytes } > Self.cachedBytes ? nil : .float32
  }

  /// The size of the last-level cache of most processors.
  private static let cachedBytes = 32 << 20

  func table(of component: String) throws -> (table: WeightTable, files: [any TensorFile]) {
    if let place = elsewhere[component] { return try place.files.table(of: place.name) }
    switch source {
    case .folder(let folder): return try folder.weights(of: component)
    case .checkpoint(let checkpoint):
      guard let table = try checkpoint.component(component).table else {
        throw ModelFilesError.missingWeights(folder: url.path(percentEncoded: false) + " (\(component))")
      }
      return (table, checkpoint.file.parts)
    }
  }

  /// A component's weights without values, for networks that a `CountingEngine` counts and nothing computes.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`.
  public func extentSource(of component: String, as form: WeightForm? = nil) throws -> any WeightSource {
    ExtentSource(try extents(of: component, as: form))
  }

  /// The sizes of a component's tensors in a form, as a memory plan counts them. Tensors without elements are left out: they take no memory, no layer asks
  /// for one, and their other extents can be anything.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`.
  package func extents(of component: String, as form: WeightForm?) throws -> [TensorExtent] {
    try table(of: component).table.extents(as: form, by: quantization(of: component))
  }

  /// The folder of a component.
  ///
  /// - Throws: `ModelFilesError`, also for a single file, which has none.
  public func folder(of component: String) throws(ModelFilesError) -> URL {
    guard case .folder(let folder) = source else { throw .noSuchComponent(name: component, model: url.path(percentEncoded: false)) }
    return try folder.folder(component)
  }

  /// A file of a component, such as `vocab.json` of `tokenizer`; nil if there is none. A single file has none.
  public func file(_ component: String, _ name: String) -> URL? {
    if let place = elsewhere[component] { return place.files.file(place.name, name) }
    return switch source {
    case .folder(let folder): folder.file(component, name)
    case .checkpoint: nil
    }
  }

  /// The files that a component is read from, sorted: all of its folder that can be read, or the single file.
  package func storage(of component: String) -> [URL] {
    if let place = elsewhere[component] { return place.files.storage(of: place.name) }
    guard case .folder = source, let folder = try? folder(of: component),
      let names = try? FileManager.default.contentsOfDirectory(atPath: folder.path(percentEncoded: false))
    else { return [url] }
    return names.sorted().map { folder.appending(path: $0) }.filter {
      var isFolder: ObjCBool = false
      let path = $0.path(percentEncoded: false)
      return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) && !isFolder.boolValue
        && FileManager.default.isReadableFile(atPath: path)
    }
  }

  /// The contents of `generation_defaults.json`, in which a model recommends steps and guidance; nil if there is none.
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

  /// Tensors of a single file that belong to no component and that training is not known to leave there, sorted.
  public var leftOver: [String] {
    let own =
      switch source {
      case .folder: [String]()
      case .checkpoint(let checkpoint): checkpoint.leftOver
      }
    return elsewhere.isEmpty ? own : Set(own + elsewhere.values.flatMap(\.files.leftOver)).sorted()
  }

  /// How many tensors of a single file belong to no component: averages kept for training, noise schedules.
  var ignoredTensors: Int {
    switch source {
    case .folder: 0
    case .checkpoint(let checkpoint): checkpoint.file.names.count - checkpoint.owners.count
    }
  }
}

extension ModelFiles.Place {
  /// The files, with what the tensors of a single file do not tell taken from another component's configuration, if it is of the same class.
  fileprivate func completed(by other: Self) throws -> ModelFiles {
    guard case .checkpoint(let checkpoint) = files.source, let component = checkpoint.components[name],
      component.className == other.files.className(of: other.name), let known = try other.files.configuration(of: other.name)
    else { return files }
    let configuration = try component.guesses.completed(component.configuration, by: known, component: name)
    return ModelFiles(
      files,
      checkpoint.replacing(
        name, by: .init(className: component.className, configuration: configuration, table: component.table, guesses: component.guesses)))
  }
}

extension ModelFiles {
  fileprivate init(_ files: ModelFiles, _ checkpoint: Checkpoint) {
    (url, registry, source) = (files.url, files.registry, .checkpoint(checkpoint))
  }
}
