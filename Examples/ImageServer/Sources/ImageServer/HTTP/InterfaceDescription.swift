import Foundation

/// The description of the interfaces (OpenAPI 3.1) with what this server is set up with: its limits and its models.
///
/// In the file, `x-limit` names a limit, which is written as the maximum of a number, or as the length of a text or of a list. `x-names` names a list of which
/// a text must be one.
struct InterfaceDescription: Sendable {
  private let value: JSONValue

  /// - Throws: `ServerSetupError.missingResources` where the file is none.
  init(_ file: Data, _ limits: ServerLimits, names: [String: [String]]) throws(ServerSetupError) {
    guard let value = try? JSONDecoder().decode(JSONValue.self, from: file) else { throw .missingResources }
    let numbers = [
      "side": limits.side, "steps": limits.steps, "prompt": limits.promptCharacters, "count": limits.count, "pixels": limits.pixels,
    ]
    self.value = Self.filled(value, numbers, names)
  }

  /// JSON.
  var data: Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    return (try? encoder.encode(value)) ?? Data("{}".utf8)
  }

  private static func filled(_ value: JSONValue, _ numbers: [String: Int], _ names: [String: [String]]) -> JSONValue {
    switch value {
    case .list(let list): return .list(list.map { filled($0, numbers, names) })
    case .object(var object):
      if case .text(let name) = object.removeValue(forKey: "x-limit"), let number = numbers[name] {
        let key = isType("string", object) ? "maxLength" : isType("array", object) ? "maxItems" : "maximum"
        object[key] = .whole(UInt64(number))
      }
      if case .text(let name) = object.removeValue(forKey: "x-names"), let found = names[name] {
        object["enum"] = .list(found.map(JSONValue.text) + (isType("null", object) ? [.null] : []))
      }
      return .object(object.mapValues { filled($0, numbers, names) })
    default: return value
    }
  }

  private static func isType(_ name: String, _ schema: [String: JSONValue]) -> Bool {
    switch schema["type"] {
    case .text(name): true
    case .list(let types): types.contains(.text(name))
    default: false
    }
  }

  /// The methods that a path has, `/api/jobs/x` for example; none where it is not described.
  func methods(of path: String) -> [String] {
    guard case .object(let root) = value, case .object(let paths) = root["paths"] else { return [] }
    let parts = path.split(separator: "/")
    let found = paths.first { pattern, _ in
      let named = pattern.split(separator: "/")
      return named.count == parts.count && zip(named, parts).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
    }
    guard case .object(let operations) = found?.value else { return [] }
    return operations.keys.map { $0.uppercased() }.sorted()
  }
}
