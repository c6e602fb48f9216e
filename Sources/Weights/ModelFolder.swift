import LatentDiffusionFiles
import Foundation
import Tensor

/// A model as diffusers saves it: a folder with `model_index.json` and a folder for each component.
struct ModelFolder: Sendable {
  let url: URL
  /// The pipeline's class.
  let className: String?
  /// The components, sorted by name, each with its class and the library of that class.
  let components: [Component]

  /// Whether the folder holds a single component.
  let isComponent: Bool
  /// Settings of the pipeline that are true or false, by their keys in the index.
  let flags: [String: Bool]
  /// Settings that are numbers.
  let numbers: [String: Double]
  /// Settings that give names to names, such as those of classes.
  let names: [String: [String: String]]

  struct Component: Sendable {
    let name: String
    let library: String
    let className: String
  }

  /// - Throws: `ModelFilesError`.
  init(_ url: URL) throws(ModelFilesError) {
    let index = url.appending(path: "model_index.json")
    let path = index.path(percentEncoded: false)
    guard FileManager.default.fileExists(atPath: path) else {
      // The folder of a component stands in that of its model.
      guard let component = Self.component(alone: url), !Self.isForeign(url) else { throw Self.noModel(url) }
      (self.url, className, components, isComponent) = (url.deletingLastPathComponent(), nil, [component], true)
      (flags, numbers, names) = ([:], [:], [:])
      return
    }
    (self.url, isComponent) = (url, false)
    let entries: [String: IndexEntry]
    do {
      entries = try JSONDecoder().decode([String: IndexEntry].self, from: try Self.read(index))
    } catch let error as ModelFilesError {
      throw error
    } catch {
      throw .malformedIndex(path: path, reason: "it is no JSON object")
    }
    if case .text(let name) = entries["_class_name"] { className = name } else { className = nil }
    flags = entries.compactMapValues { if case .flag(let value) = $0 { value } else { nil } }
    numbers = entries.compactMapValues { if case .number(let value) = $0 { value } else { nil } }
    names = entries.compactMapValues { if case .names(let value) = $0 { value } else { nil } }
    var components: [Component] = []
    for (name, entry) in entries.sorted(by: { $0.key < $1.key }) {
      guard !name.hasPrefix("_"), case .component(let library, let className) = entry else { continue }
      guard Self.isPlain(name) else { throw .malformedIndex(path: path, reason: "\(name) is not the name of a folder in it") }
      components.append(Component(name: name, library: library, className: className))
    }
    guard !components.isEmpty else { throw .malformedIndex(path: path, reason: "it names no components") }
    self.components = components
  }

  /// Why a folder without `model_index.json` is no model.
  private static func noModel(_ url: URL) -> ModelFilesError {
    let path = url.path(percentEncoded: false)
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path))?.sorted() ?? []
    if let foreign = ForeignFile(files: names) { return .foreign(path: path, foreign) }
    let files = names.filter { name in [".safetensors", ".ckpt"].contains { name.lowercased().hasSuffix($0) } }
    if let file = files.first, files.count == 1 {
      return .foreign(
        path: path, ForeignFile("a folder without model_index.json", "if \(printable(file)) in it is a whole model, give that file"))
    }
    return .missingIndex(folder: path)
  }

  /// Whether a folder without safetensors files is another program's.
  private static func isForeign(_ url: URL) -> Bool {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: url.path(percentEncoded: false))) ?? []
    return !names.contains { $0.hasSuffix(".safetensors") || $0.hasSuffix(".gguf") || $0.contains("pytorch_model") }
      && ForeignFile(files: names) != nil
  }

  /// The component in a folder of its own; nil where there is no configuration that names a class.
  private static func component(alone url: URL) -> Component? {
    guard let json = try? read(url.appending(path: "config.json")), let found = try? JSONDecoder().decode(ComponentClass.self, from: json),
      let className = found._class_name ?? found.architectures?.first
    else { return nil }
    return Component(
      name: url.lastPathComponent, library: found._class_name == nil ? "transformers" : "diffusers", className: className)
  }

  private struct ComponentClass: Decodable {
    var _class_name: String?
    var architectures: [String]?
  }

  /// The value of a key in `model_index.json`.
  private enum IndexEntry: Decodable {
    case text(String)
    case component(library: String, className: String)
    case flag(Bool)
    case number(Double)
    case names([String: String])
    /// A component that is left out (`[null, null]`), or another setting of the pipeline.
    case other

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let text = try? container.decode(String.self) {
        self = .text(text)
      } else if let flag = try? container.decode(Bool.self) {
        self = .flag(flag)
      } else if let number = try? container.decode(Double.self) {
        self = .number(number)
      } else if let names = try? container.decode([String: String].self) {
        self = .names(names)
      } else if let pair = try? container.decode([String?].self), pair.count == 2, let className = pair[1] {
        self = .component(library: pair[0] ?? "", className: className)
      } else {
        self = .other
      }
    }
  }

  /// True for a file name that cannot lead out of its folder.
  static func isPlain(_ name: String) -> Bool {
    !name.isEmpty && name != "." && name != ".." && !name.contains { $0 == "/" || $0 == "\\" || $0 == "\0" }
  }

  private static func read(_ url: URL) throws(ModelFilesError) -> Data {
    do {
      return try Data(mapping: url)
    } catch {
      throw .unreadable(path: url.path(percentEncoded: false), reason: error.reason)
    }
  }

  /// The folder of a component.
  func folder(_ component: String) throws(ModelFilesError) -> URL {
    guard components.contains(where: { $0.name == component }) else {
      throw .noSuchComponent(name: component, model: url.path(percentEncoded: false))
    }
    let folder = url.appending(path: component, directoryHint: .isDirectory)
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: folder.path(percentEncoded: false), isDirectory: &isFolder), isFolder.boolValue else {
      throw .missingComponent(name: component, path: folder.path(percentEncoded: false))
    }
    return folder
  }

  /// A file of a component; nil if there is none of this name.
  func file(_ component: String, _ name: String) -> URL? {
    guard Self.isPlain(name), let file = try? folder(component).appending(path: name) else { return nil }
    return FileManager.default.fileExists(atPath: file.path(percentEncoded: false)) ? file : nil
  }

  /// The component's configuration; nil if its folder has none.
  func configuration(of component: String) throws(ModelFilesError) -> Data? {
    _ = try folder(component)
    for name in ["config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json"] {
      if let file = file(component, name) { return try Self.read(file) }
    }
    return nil
  }

  /// A file of the model itself; nil if there is none of this name.
  func contents(of name: String) throws(ModelFilesError) -> Data? {
    let file = url.appending(path: name)
    return FileManager.default.fileExists(atPath: file.path(percentEncoded: false)) ? try Self.read(file) : nil
  }

  /// The ordinary files of a component, or of the model itself, that hold no weights. Hidden files are left out.
  func others(in component: String?) throws(ModelFilesError) -> [String] {
    let path = (try component.map { name throws(ModelFilesError) in try folder(name) } ?? url).path(percentEncoded: false)
    guard let names = try? FileManager.default.contentsOfDirectory(atPath: path) else {
      throw .unreadable(path: path, reason: "its permissions forbid it")
    }
    return names.sorted().filter { name in
      guard !name.hasPrefix("."), !WeightFiles.holdsWeights(name) else { return false }
      var isFolder: ObjCBool = false
      return FileManager.default.fileExists(atPath: path + "/" + name, isDirectory: &isFolder) && !isFolder.boolValue
    }
  }

  /// A component's weights under the newest names, and the files they are in.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`.
  func weights(of component: String) throws -> (table: WeightTable, files: [any TensorFile]) {
    let stored = try storedWeights(of: component)
    let className = components.first { $0.name == component }?.className ?? ""
    return (stored.table.renamed { KeyNames.current($0, className: className) }, stored.files)
  }

  /// A component's weights under the names of its files; `url` is the file, or the index of several.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`.
  func storedWeights(of component: String) throws -> (url: URL, table: WeightTable, files: [any TensorFile]) {
    let library = components.first { $0.name == component }?.library ?? ""
    let file = try TensorFileFormat.open(WeightFiles(in: try folder(component), library: library).preferred)
    return (file.url, file.table, file.parts)
  }
}

/// The weight files in a component's folder, of which there may be several variants.
struct WeightFiles {
  /// The file, or the index of several files, that diffusers would choose. A variant is chosen only if there is nothing else.
  let preferred: URL

  init(in folder: URL, library: String) throws(ModelFilesError) {
    let path = folder.path(percentEncoded: false)
    guard let names = try? FileManager.default.contentsOfDirectory(atPath: path) else {
      throw .unreadable(path: path, reason: "its permissions forbid it")
    }
    let ranked = names.compactMap { name in Self.rank(name, library: library).map { (rank: $0, name: name) } }
    if let best = ranked.min(by: { ($0.rank, $0.name) < ($1.rank, $1.name) }) {
      preferred = folder.appending(path: best.name)
    } else if let foreign = ForeignFile(files: names) {
      throw .foreign(path: path, foreign)
    } else {
      throw .missingWeights(folder: path)
    }
  }

  static let diffusersStem = "diffusion_pytorch_model"

  /// What a component's only file of weights is called when it is written in a format.
  ///
  /// - Parameter name: of the file, or the index, that it is made of.
  static func name(of format: WeightFileFormat, insteadOf name: String) -> String {
    (name.hasPrefix(diffusersStem) ? diffusersStem : "model") + "." + format.rawValue
  }

  /// Whether a file holds weights in any format, or is an index of such files.
  static func holdsWeights(_ name: String) -> Bool {
    endings.contains { name.hasSuffix($0) } || name.hasSuffix(".json") && (name.contains(".safetensors.") || name.contains(".bin."))
  }

  private static let endings = [
    ".bin", ".ckpt", ".pt", ".pth", ".bin.index.json", ".safetensors", ".fp16.json", ".msgpack", ".msgpack.index.json", ".h5", ".onnx",
    ".onnx_data", ".pb", ".gguf",
  ]

  /// The rank of a file, the smaller the better: first no variant, then `fp16`, then other variants; of these first safetensors, then files of
  /// PyTorch, then GGUF files, which diffusers does not look for. diffusers prefers an index to a single file, transformers the reverse. Nil if the file has
  /// no weights, or is a shard, which only an index makes usable.
  private static func rank(_ name: String, library: String) -> Int? {
    for (place, format) in ["safetensors", "bin", "gguf"].enumerated() {
      let stems = [diffusersStem, format == "bin" ? "pytorch_model" : "model"]
      // Names of GGUF files end in their form, after a hyphen: model-Q8_0.gguf.
      let marks = format == "gguf" ? [".", "-"] : ["."]
      for (order, stem) in (library != "diffusers" ? stems.reversed() : stems).enumerated()
      where marks.contains(where: { name.hasPrefix(stem + $0) }) {
        let parts = name.dropFirst(stem.count + 1).split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard let (variant, isIndex) = variant(parts, of: format), !isIndex || format != "gguf" else { continue }
        let isSecond = isIndex == (stem != diffusersStem)
        return 12 * (variant.isEmpty ? 0 : variant == "fp16" ? 1 : 2) + 4 * place + 2 * order + (isSecond ? 1 : 0)
      }
    }
    return nil
  }

  /// The variant V between the stem and the ending, in every spelling of diffusers and transformers: `V.safetensors`, `safetensors.index.V.json`,
  /// `safetensors.V.index.json`, `V.safetensors.index.json`, and the same with `bin`. V may be several words, or none.
  private static func variant(_ parts: [String], of format: String) -> (variant: String, isIndex: Bool)? {
    if parts.last == format {
      let words = parts.dropLast()
      return words.contains { $0.contains("-of-") } ? nil : (words.joined(separator: "."), false)
    }
    guard parts.last == "json", let middle = parts.firstIndex(of: format), let index = parts.firstIndex(of: "index"), middle < index else {
      return nil
    }
    let words = parts[..<middle] + parts[(middle + 1)..<index] + parts[(index + 1)...].dropLast()
    return (words.joined(separator: "."), true)
  }
}
