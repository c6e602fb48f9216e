import Foundation
import Tensor
import LatentDiffusionWeights

/// The cases of a fixture: a safetensors file whose metadata holds `cases`, JSON for `[Parameters]`, and whose tensors are named
/// after the case they belong to, `NAME.tensor`.
public struct ReferenceCases<Parameters: Decodable>: Sequence {
  private let file: SafetensorsFile
  private let parameters: [Parameters]
  private let names: [String]

  private struct Named: Decodable { let name: String }

  /// - Parameter path: within `Tests/Fixtures`.
  public init(_ path: String) throws {
    file = try SafetensorsFile(fixtures.appending(path: path))
    let cases = Data((file.metadata["cases"] ?? "").utf8)
    parameters = try JSONDecoder().decode([Parameters].self, from: cases)
    names = try JSONDecoder().decode([Named].self, from: cases).map(\.name)
  }

  public func makeIterator() -> AnyIterator<ReferenceCase<Parameters>> {
    var items = Swift.zip(names, parameters).makeIterator()
    return AnyIterator { items.next().map { ReferenceCase(name: $0.0, parameters: $0.1, file: file) } }
  }
}

/// One case: what goes in, and what the reference answered.
public struct ReferenceCase<Parameters> {
  public let name: String
  public let parameters: Parameters
  fileprivate let file: SafetensorsFile

  /// A tensor as it stands in the file; nil where this case has none of that name.
  public func weights(_ tensor: String) throws -> WeightTensor? {
    guard let shape = file.tensors["\(name).\(tensor)"]?.shape else { return nil }
    return try file.tensor("\(name).\(tensor)", shape: shape)
  }

  public func optional(_ tensor: String) throws -> Tensor? { try weights(tensor)?.decoded() }

  /// - Throws: where this case has no tensor of that name.
  public subscript(_ tensor: String) -> Tensor {
    get throws {
      guard let found = try optional(tensor) else { throw MissingFixture(name: "\(name).\(tensor)") }
      return found
    }
  }

  public struct MissingFixture: Error { public let name: String }
}
