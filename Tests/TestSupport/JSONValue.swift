import Foundation
import LatentDiffusionWeights

/// A value in a JSON file, to compare configurations with, or to write them again.
package enum JSONValue: Codable, Equatable, Sendable {
  case null
  case bool(Bool)
  case number(Double)
  case text(String)
  case list([JSONValue])
  case object([String: JSONValue])

  package init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .bool(value)
    } else if let value = try? container.decode(Double.self) {
      self = .number(value)
    } else if let value = try? container.decode(String.self) {
      self = .text(value)
    } else if let value = try? container.decode([JSONValue].self) {
      self = .list(value)
    } else {
      self = .object(try container.decode([String: JSONValue].self))
    }
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .null: try container.encodeNil()
    case .bool(let value): try container.encode(value)
    case .number(let value): try container.encode(value)
    case .text(let value): try container.encode(value)
    case .list(let values): try container.encode(values)
    case .object(let values): try container.encode(values)
    }
  }

  /// Equal, or one value for all levels beside a list of as many.
  package func says(_ other: JSONValue) -> Bool {
    if case .list(let values) = self, case .list = other { return .list(values) == other }
    if case .list(let values) = self { return !values.isEmpty && values.allSatisfy { $0 == other } }
    return self == other
  }

  package static func of(_ files: ModelFiles, _ component: String) throws -> [String: JSONValue] {
    let json = try files.requiredConfiguration(of: component)
    return try JSONDecoder().decode([String: JSONValue].self, from: json)
  }
}
