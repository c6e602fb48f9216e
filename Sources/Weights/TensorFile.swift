import Foundation
import Tensor

/// A file with tensors, or several that belong together. `TensorFileFormat.open` finds out which format it has.
public protocol TensorFile: WeightSource {
  /// Where the file is, or the index of several.
  var url: URL { get }
  /// What the file says of itself.
  var metadata: [String: String] { get }
  /// All tensors, whatever the format of their elements.
  var table: WeightTable { get }
  /// The files in which the tensors are: this one, if nothing else is said.
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

/// A format of files with tensors. A new one is a type that conforms to `TensorFile`, a value of this beside it, and an entry of `all`.
public struct TensorFileFormat: Sendable {
  /// For people.
  public let name: String
  private let isRecognized: @Sendable (_ url: URL, _ beginning: Data) -> Bool
  private let opened: @Sendable (URL) throws -> any TensorFile

  /// - Parameters:
  ///   - name: for people.
  ///   - isRecognized: whether a file has this format, by its name and its first 512 bytes.
  ///   - opened: opens a file that has.
  public init(
    _ name: String, isRecognized: @escaping @Sendable (_ url: URL, _ beginning: Data) -> Bool,
    opened: @escaping @Sendable (URL) throws -> any TensorFile
  ) {
    (self.name, self.isRecognized, self.opened) = (name, isRecognized, opened)
  }

  /// Every format that can be read. A file that none recognises is opened as the last, whose errors say what it may be instead.
  public static let all: [TensorFileFormat] = [.safetensorsIndex, .safetensors]

  /// Opens a file in whichever of the formats it has.
  ///
  /// - Throws: what the format throws: `SafetensorsError`.
  public static func open(_ url: URL, as formats: [TensorFileFormat] = all) throws -> any TensorFile {
    let beginning = (try? Data(mapping: url))?.prefix(ForeignFile.signatureBytes) ?? Data()
    let format = formats.first { $0.isRecognized(url, beginning) } ?? formats.last ?? .safetensors
    return try format.opened(url)
  }
}
