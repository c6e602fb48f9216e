import Foundation
import LatentDiffusionComponents
import Tensor

/// A component whose weights are what its initialisation in PyTorch drew: a file of `Tests/Fixtures/published/components`.
package struct SeededComponent: Decodable {
  /// Its `config.json`.
  package let config: JSONValue
  private let seed: UInt64
  private let draws: [Draw]
  private let constants: [Constant]

  package init(contentsOf url: URL) throws { self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: url)) }

  /// The weights by their names, as the file of a checkpoint has them.
  package func tensors() -> [String: Tensor] {
    var generator = TorchGenerator(seed: seed)
    var all: [String: Tensor] = [:]
    for draw in draws {
      let numbers = draw.numbers(from: &generator)
      // What a later draw overwrote has no name.
      if let name = draw.name { all[name] = Tensor(numbers, shape: Shape(draw.shape)) }
    }
    for constant in constants { all[constant.name] = Tensor(repeating: constant.value, shape: Shape(constant.shape)) }
    return all
  }
}

/// `[name or null, shape, "uniform" or "normal", two numbers]`: the bounds, or the mean and the deviation.
private struct Draw: Decodable {
  enum Kind: String, Decodable { case uniform, normal }
  let name: String?
  let shape: [Int]
  let kind: Kind
  let first, second: Float

  init(from decoder: any Decoder) throws {
    var values = try decoder.unkeyedContainer()
    name = try values.decodeIfPresent(String.self)
    shape = try values.decode([Int].self)
    kind = try values.decode(Kind.self)
    first = try values.decode(Float.self)
    second = try values.decode(Float.self)
  }

  func numbers(from generator: inout TorchGenerator) -> [Float] {
    let count = shape.reduce(1, *)
    return switch kind {
    case .uniform: generator.uniform(count).map { $0 * (second - first) + first }
    case .normal: generator.normal(count).map { $0 * second + first }
    }
  }
}

/// `[name, shape, value]`.
private struct Constant: Decodable {
  let name: String
  let shape: [Int]
  let value: Float

  init(from decoder: any Decoder) throws {
    var values = try decoder.unkeyedContainer()
    name = try values.decode(String.self)
    shape = try values.decode([Int].self)
    value = try values.decode(Float.self)
  }
}
