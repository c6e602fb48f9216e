import EmojiModel
import Foundation

/// A model or a LoRA that clients can name. They name it by `name` alone; no path comes from a client.
public struct NamedFile: Sendable, Equatable {
  /// What clients call it.
  public let name: String
  /// A folder or a file.
  public let url: URL

  /// A file under a name.
  public init(name: String, url: URL) { (self.name, self.url) = (name, url) }

  /// The model that comes with the package.
  /// - Throws: `EmojiModelError`.
  public static func embedded() throws(EmojiModelError) -> NamedFile { NamedFile(name: "emoji", url: try EmojiModel.folder()) }

  /// What a model knows to draw, where its folder says it: captions in `captions.txt`, with `|` between them. Nil: nothing says it.
  var captions: [String]? {
    guard let text = try? String(contentsOf: url.appending(path: "captions.txt"), encoding: .utf8) else { return nil }
    return text.split(separator: "|").map { $0.trimmingCharacters(in: .whitespacesAndNewlines) }.filter { !$0.isEmpty }
  }

  /// The models of a folder: its folders with a `model_index.json`, and its files of weights.
  /// - Throws: `ServerSetupError`.
  public static func models(in folder: URL) throws(ServerSetupError) -> [NamedFile] {
    try entries(of: folder) { $0.hasDirectoryPath ? exists($0.appending(path: "model_index.json")) : isWeights($0, ["gguf"]) }
  }

  /// The LoRAs of a folder.
  /// - Throws: `ServerSetupError`.
  public static func loras(in folder: URL) throws(ServerSetupError) -> [NamedFile] {
    try entries(of: folder) { !$0.hasDirectoryPath && isWeights($0, ["pt", "bin"]) }
  }

  private static func entries(of folder: URL, where isOne: (URL) -> Bool) throws(ServerSetupError) -> [NamedFile] {
    guard let urls = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: [.isDirectoryKey]) else {
      throw .unreadableFolder(folder.path(percentEncoded: false))
    }
    return urls.filter(isOne).sorted { $0.path < $1.path }.map { NamedFile(name: $0.deletingPathExtension().lastPathComponent, url: $0) }
  }

  private static func isWeights(_ url: URL, _ others: [String]) -> Bool { (["safetensors", "ckpt"] + others).contains(url.pathExtension) }
  private static func exists(_ url: URL) -> Bool { FileManager.default.fileExists(atPath: url.path(percentEncoded: false)) }
}

/// Why a server cannot start.
public enum ServerSetupError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A folder of models or LoRAs.
  case unreadableFolder(String)
  /// Two files would have one name.
  case nameTaken(String)
  /// There is nothing to draw with.
  case noModels
  /// The folder in which jobs and pictures are kept.
  case unusableState(String, reason: String)
  /// The page and the description of the interfaces.
  case missingResources

  public var description: String {
    switch self {
    case .unreadableFolder(let path): "The folder \(path) cannot be read."
    case .nameTaken(let name): "Two files are called \(name); give one of them another name with NAME=PATH."
    case .noModels: "There is no model; name one with --model, or leave out --no-embedded."
    case .unusableState(let path, let reason): "The folder \(path) cannot keep jobs and pictures: \(reason)."
    case .missingResources:
      "The folder ImageServer_ImageServer.resources is not beside the program; copy it from the build folder to where the program lies."
    }
  }
}
