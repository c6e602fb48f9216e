import LatentDiffusionFiles
import Foundation
import Tensor

/// A file with tensors, or several that belong together. `TensorFileFormat.open` finds out which format it has.
public protocol TensorFile: WeightSource {
  /// Where the file is, or the index of several.
  var url: URL { get }
  /// The file's description of itself, by key.
  var metadata: [String: String] { get }
  /// All tensors, whatever the format of their elements.
  var table: WeightTable { get }
  /// The files that hold the tensors. The default is this file.
  var parts: [any TensorFile] { get }
}

extension TensorFile {
  public var parts: [any TensorFile] { [self] }
  /// All tensors by name, whatever the format of their elements.
  public var tensors: [String: StoredTensor] { table.tensors }

  public var names: Set<String> { table.names }
  public func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor { try table.tensor(name, shape: shape) }
  public func origin(of name: String) -> WeightOrigin { table.origin(of: name) }
}

/// A format of files with tensors. A new format needs a type that conforms to `TensorFile`, a value of this type, and an entry in `all`.
public struct TensorFileFormat: Sendable {
  /// The name for people.
  public let name: String
  private let isRecognized: @Sendable (_ url: URL, _ beginning: Data) -> Bool
  private let opened: @Sendable (URL) throws -> any TensorFile

  /// - Parameters:
  ///   - name: the name for people.
  ///   - isRecognized: whether a file has this format, judged by its name and its first 512 bytes.
  ///   - opened: opens a file of this format.
  public init(
    _ name: String, isRecognized: @escaping @Sendable (_ url: URL, _ beginning: Data) -> Bool,
    opened: @escaping @Sendable (URL) throws -> any TensorFile
  ) {
    (self.name, self.isRecognized, self.opened) = (name, isRecognized, opened)
  }

  /// Every format that can be read. A file that no format recognises is opened as the last one, whose errors say what it may be.
  public static let all: [TensorFileFormat] = [.shardIndex, .gguf, .pyTorch, .safetensors]

  /// Opens a file of any of these formats.
  ///
  /// - Throws: what the format throws: `SafetensorsError`, `GGUFError`, `PyTorchFileError`.
  public static func open(_ url: URL, as formats: [TensorFileFormat] = all) throws -> any TensorFile {
    let beginning = (try? Data(mapping: url))?.prefix(ForeignFile.signatureBytes) ?? Data()
    let format = formats.first { $0.isRecognized(url, beginning) } ?? formats.last ?? .safetensors
    return try format.opened(url)
  }
}
