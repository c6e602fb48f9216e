import Foundation
import Synchronization
import Tensor
import Testing
import LatentDiffusionWeights

/// A tiny model of `Tests/Fixtures/models`, or of another folder there, and what the reference made of it.
public struct ReferenceModel: Sendable, CustomTestStringConvertible {
  public let name: String
  private let area: String
  public init(_ name: String) { self.init(name, in: "models") }
  public init(_ name: String, in area: String) { (self.name, self.area) = (name, area) }

  public var folder: URL { fixtures.appending(path: "\(area)/\(name)") }
  public var testDescription: String { name }

  /// A pass of `cases.json`, with its tensors as PyTorch lays them out.
  public func pass<Inputs: Decodable>(_ name: String, _ inputs: Inputs.Type) throws -> (inputs: Inputs, tensors: [String: Tensor]) {
    // Python writes infinities as JavaScript does.
    let decoder = JSONDecoder()
    decoder.allowsJSON5 = true
    let cases = try decoder.decode(Cases<Inputs>.self, from: Data(contentsOf: folder.appending(path: "cases.json")))
    let pass = try #require(cases.passes[name]?.pass, "\(self.name) has no pass \(name)")
    var tensors: [String: Tensor] = [:]
    for file in pass.files {
      tensors.merge(try readTensors(folder.appending(path: "reference/\(file)"))) { first, _ in first }
    }
    return (pass.inputs, tensors)
  }
}

private struct Cases<Inputs: Decodable>: Decodable {
  let passes: [String: Either<Inputs>]
}

/// Passes differ in their inputs: only the one that is asked for has to fit.
private struct Either<Inputs: Decodable>: Decodable {
  let pass: Pass<Inputs>?
  init(from decoder: any Decoder) throws { pass = try? Pass(from: decoder) }
}

private struct Pass<Inputs: Decodable>: Decodable {
  let files: [String]
  let inputs: Inputs
  private enum CodingKeys: CodingKey { case files }

  init(from decoder: any Decoder) throws {
    files = try decoder.container(keyedBy: CodingKeys.self).decode([String].self, forKey: .files)
    inputs = try Inputs(from: decoder)
  }
}

/// The float tensors of a safetensors file.
public func readTensors(_ url: URL) throws -> [String: Tensor] {
  let file = try SafetensorsFile(url)
  return try file.tensors.reduce(into: [:]) { all, entry in
    all[entry.key] = try file.tensor(entry.key, shape: entry.value.shape).decoded()
  }
}

extension Tensor {
  /// From PyTorch's `[N, C, H, W]`, or from its `[N, C, F, H, W]`; unchanged where it is neither.
  public var asPictures: Tensor {
    shape.rank == 4 ? channelsLast() : shape.rank == 5 ? permuted([0, 2, 3, 4, 1]) : self
  }
}

/// Compares each module's result with the reference's as it comes, and knows where the largest difference was.
public final class ModuleComparison: Sendable {
  private let reference: [String: Tensor]
  private let tolerance: Float
  private let compared = Mutex<[String: Float]>([:])

  public init(_ reference: [String: Tensor], tolerance: Float) {
    self.reference = reference
    self.tolerance = tolerance
  }

  public func observe(_ module: String, _ result: Tensor) {
    guard let expected = reference[module]?.asPictures else { return }
    let difference = expectClose(result.elements, expected.elements, tolerance: tolerance, module)
    compared.withLock { $0[module] = difference.error }
  }

  /// How many modules have been compared.
  public var count: Int { compared.withLock { $0.count } }

  /// Modules of the fixture that have not been compared; inputs and outputs of the whole are none.
  public var missed: [String] {
    let names = reference.keys.filter { !$0.hasPrefix("input") && !$0.hasPrefix("output") && $0 != "moments" }
    return names.filter { name in compared.withLock { $0[name] == nil } }.sorted()
  }

  public var largest: String {
    compared.withLock { all in all.max { $0.value < $1.value }.map { "\($0.key): \($0.value)" } ?? "nothing compared" }
  }
}
