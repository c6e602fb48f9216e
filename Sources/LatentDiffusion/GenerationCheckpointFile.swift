import Foundation
import LatentDiffusionFiles
import LatentDiffusionWeights
import Pipeline
import Tensor

/// A checkpoint as one safetensors file: its large tensors as tensors, the rest as text in the metadata.
extension Generation.Checkpoint {
  private static let (versionKey, descriptionKey, version) = ("generation_checkpoint", "checkpoint", "2")

  /// Writes the file: beside an older one, which it then replaces. A process that is killed meanwhile leaves the older one.
  ///
  /// - Parameters:
  ///   - notes: what a program wants to find again, by names of its own (`notes(in:)`).
  ///   - others: tensors that it wants to find again (`tensors(in:)`), such as what an earlier pass made.
  /// - Throws: `FileWriteError`; what encoding throws.
  public func write(to url: URL, notes: [String: String] = [:], tensors others: [String: Tensor] = [:]) throws {
    var rest = self, tensors = ["latents": latents]
    for (name, tensor) in others { tensors["own.\(name)"] = tensor }
    for (pass, kept) in kept.enumerated() {
      for (name, tensor) in kept {
        tensors["kept.\(pass).\(name)"] = tensor
        rest.kept[pass][name] = Tensor(shape: [0])
      }
    }
    rest.latents = Tensor(shape: [0])
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var metadata = [Self.versionKey: Self.version, Self.descriptionKey: String(decoding: try encoder.encode(rest), as: UTF8.self)]
    for (name, note) in notes { metadata["note.\(name)"] = note }
    try SafetensorsWriter.write(tensors, metadata: metadata, to: url)
  }

  /// Reads a file that `write` wrote.
  /// - Throws: `CheckpointFileError`, `SafetensorsError`.
  public init(contentsOf url: URL) throws {
    let file = try SafetensorsFile(url), path = url.path(percentEncoded: false)
    let text = try Self.description(in: file, path: path)
    do {
      self = try JSONDecoder().decode(Self.self, from: Data(text.utf8))
    } catch {
      throw CheckpointFileError.damaged(path: path, reason: "its description cannot be read")
    }
    latents = try Self.tensor("latents", in: file, path: path)
    for pass in kept.indices {
      for name in kept[pass].keys { kept[pass][name] = try Self.tensor("kept.\(pass).\(name)", in: file, path: path) }
    }
  }

  private static func tensor(_ name: String, in file: SafetensorsFile, path: String) throws(CheckpointFileError) -> Tensor {
    guard let stored = file.tensors[name], stored.elementType == "F32", let values = try? file.tensor(name, shape: stored.shape) else {
      throw .damaged(path: path, reason: "the tensor \(name) is missing")
    }
    return values.decoded()
  }

  /// The tensors that the program kept beside the checkpoint.
  /// - Throws: `CheckpointFileError`, `SafetensorsError`.
  public static func tensors(in url: URL) throws -> [String: Tensor] {
    let file = try SafetensorsFile(url), path = url.path(percentEncoded: false), own = file.names.filter { $0.hasPrefix("own.") }
    _ = try description(in: file, path: path)
    return Dictionary(uniqueKeysWithValues: try own.map { (String($0.dropFirst(4)), try tensor($0, in: file, path: path)) })
  }

  /// What the program noted that wrote a file.
  /// - Throws: `CheckpointFileError`, `SafetensorsError`.
  public static func notes(in url: URL) throws -> [String: String] {
    let file = try SafetensorsFile(url)
    _ = try description(in: file, path: url.path(percentEncoded: false))
    var notes: [String: String] = [:]
    for (key, note) in file.metadata where key.hasPrefix("note.") { notes[String(key.dropFirst(5))] = note }
    return notes
  }

  private static func description(in file: SafetensorsFile, path: String) throws(CheckpointFileError) -> String {
    guard let version = file.metadata[versionKey], let text = file.metadata[descriptionKey] else { throw .noCheckpoint(path: path) }
    guard version == Self.version else { throw .otherVersion(path: path, found: version) }
    return text
  }
}

/// Why a file is no checkpoint that a generation can go on from.
public enum CheckpointFileError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A safetensors file of something else.
  case noCheckpoint(path: String)
  /// One of another version of this library.
  case otherVersion(path: String, found: String)
  /// Somebody changed it.
  case damaged(path: String, reason: String)

  public var description: String {
    switch self {
    case .noCheckpoint(let path): "\(path) is no checkpoint of a generation."
    case .otherVersion(let path, let found):
      "\(path) is a checkpoint of another version (\(found)) of this program; delete it to begin anew."
    case .damaged(let path, let reason): "\(path) is damaged: \(reason); delete it to begin anew."
    }
  }
}
