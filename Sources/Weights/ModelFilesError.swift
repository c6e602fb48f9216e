/// Why the files of a model cannot be used.
public enum ModelFilesError: Error, Sendable, Equatable, CustomStringConvertible {
  /// Nothing is at this path.
  case notFound(path: String)
  /// A folder without `model_index.json`.
  case missingIndex(folder: String)
  /// `model_index.json` is no JSON object, or names no components.
  case malformedIndex(path: String, reason: String)
  /// A folder of Hugging Face's cache without a snapshot to open.
  case noSnapshot(folder: String, reason: String)
  /// A component that the model's index names and its folder lacks.
  case missingComponent(name: String, path: String)
  /// A component that the model does not have.
  case noSuchComponent(name: String, model: String)
  /// A file that exists but cannot be read.
  case unreadable(path: String, reason: String)
  /// A component's folder without any weights.
  case missingWeights(folder: String)
  /// A file whose tensors are not those of a model.
  case notAModel(path: String, reason: String)
  /// A file or folder that is something other than a model.
  case foreign(path: String, ForeignFile)
  /// A single file that lacks parts of a model, which are named in words.
  case incomplete(path: String, found: [String], missing: [String])
  /// A model of a family that this library does not support yet; `supported` names those that it does.
  case unsupported(path: String, family: String, supported: String)

  /// Parts in words, with their articles.
  private static func list(_ parts: [String], or isChoice: Bool = false) -> String {
    let names = parts.map { isChoice ? $0 : ($0.hasPrefix("a") ? "an " : "a ") + $0 }
    return names.joined(separator: isChoice ? " and no " : " and ")
  }

  public var description: String {
    switch self {
    case .notFound(let path):
      "There is no model at \(path); give the folder of a model, or a .safetensors or .ckpt file."
    case .missingIndex(let folder):
      "\(folder) is not the folder of a model: it has no model_index.json."
    case .noSnapshot(let folder, let reason):
      "\(folder) is a folder of Hugging Face's cache, but \(printable(reason))."
    case .malformedIndex(let path, let reason):
      "\(path) cannot be used: \(printable(reason))."
    case .missingComponent(let name, let path):
      "The model's \(printable(name)) is missing: there is no folder \(path)."
    case .noSuchComponent(let name, let model):
      "The model at \(model) has no \(printable(name))."
    case .unreadable(let path, let reason):
      "\(path) cannot be read: \(reason)."
    case .missingWeights(let folder):
      "\(folder) has no weights: a .safetensors or .bin file is expected there."
    case .notAModel(let path, let reason):
      "\(path) is not a model that can be read: \(printable(reason))."
    case .foreign(let path, let file):
      file.described(at: path)
    case .incomplete(let path, let found, let missing):
      "\(path) is not a whole model: it holds \(Self.list(found)), but no \(Self.list(missing, or: true)); give a file that has all of them, or a "
        + "folder with model_index.json."
    case .unsupported(let path, let family, let supported):
      "\(path) is \(family), which is not supported yet; \(supported) is."
    }
  }
}
